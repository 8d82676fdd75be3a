"""How a run is spread over processes and its network compiled."""

from gpt4o_lit.strategies.fsdp2 import FSDP2, whole_network

__all__ = ["FSDP2", "whole_network"]
