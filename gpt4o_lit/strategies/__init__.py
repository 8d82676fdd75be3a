"""How a run is spread over processes and its network compiled."""

from gpt4o_lit.strategies.deepspeed import DeepSpeed
from gpt4o_lit.strategies.fsdp2 import FSDP2
from gpt4o_lit.strategies.tensor_parallel import TensorParallel
from gpt4o_lit.strategies.whole import data_place, whole_network

__all__ = ["FSDP2", "DeepSpeed", "TensorParallel", "data_place", "whole_network"]
