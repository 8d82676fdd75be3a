"""What one process makes of a network that lies in parts: a whole copy, and its own place."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from gpt4o_lit.model import AttentionConfig, StackConfig, Transformer, TransformerConfig
from gpt4o_lit.strategies import DeepSpeed, whole_network
from gpt4o_lit.strategies.parts import HoldsParts

STACK = StackConfig(num_layers=1, dim=16, attention=AttentionConfig(num_heads=2))
CONFIG = TransformerConfig(decoder=STACK, vocab_size=32)


class Doubles(DeepSpeed):
    """A strategy whose whole weights can be told from those of a process."""

    root_device = torch.device("cpu")

    def __init__(self) -> None: ...

    def whole_state(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        return {name: 2 * weight for name, weight in module.state_dict().items()}


def test_the_whole_is_a_copy_that_draws_no_coin() -> None:
    network = Transformer(CONFIG)
    before = torch.random.get_rng_state()
    whole = whole_network(Doubles(), network)
    assert torch.equal(before, torch.random.get_rng_state())
    assert whole is not network
    assert not whole.training
    for name, weight in network.state_dict().items():
        assert torch.equal(whole.state_dict()[name], 2 * weight)


def test_where_each_process_has_it_whole_it_is_the_network_itself() -> None:
    network = Transformer(CONFIG)
    assert whole_network(SimpleNamespace(), network) is network
    strategy: Any = Doubles()
    strategy.whole_state = lambda module: None
    assert whole_network(strategy, network) is network
    assert isinstance(strategy, HoldsParts)
