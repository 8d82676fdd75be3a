"""A step without numbers takes the memory of the step with numbers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gpt4o_lit.evaluation.rehearsal import Micro, rehearse
from gpt4o_lit.model import Transformer, TransformerConfig, count_parameters
from gpt4o_lit.objectives import linear_cross_entropy
from gpt4o_lit.optim import Adafactor, AdamW, Muon, OptimizerRecipe

ROWS, LENGTH = 4, 64
PLAIN = {"num_layers": 2, "dim": 64, "attention": {"num_heads": 2}}
CLASSIC = {
    **PLAIN,
    "dropout": 0.1,
    "norm": {"kind": "layer", "placement": "post"},
    "position": {"kind": "learned"},
    "feed_forward": {"activation": "gelu"},
}


def network(*stacks: str, **stack: Any) -> TransformerConfig:
    values = {name: {**PLAIN, **stack} for name in stacks}
    return TransformerConfig.from_dict({"vocab_size": 300, "max_seq_len": LENGTH, **values})


CASES = {
    "decoder": network("decoder"),
    "encoder": network("encoder", **CLASSIC),
    "encoder-decoder": network("encoder", "decoder", dropout=0.1),
    "T5's biases, dropped weights": network(
        "decoder", position={"kind": "relative"}, attention={"num_heads": 2, "dropout": 0.1}
    ),
    "checkpointing": network("decoder", checkpointing=True),
}


def kept_by_autograd(config: TransformerConfig, products: torch.dtype) -> int:
    """Bytes that a real step saves for its backward, parameters left out."""
    net, source = Transformer(config).train(), None
    tokens = torch.zeros(ROWS, LENGTH, dtype=torch.int64)
    if config.kind == "encoder_decoder":
        source = tokens
    parameters = {weight.untyped_storage().data_ptr() for weight in net.parameters()}
    saved: dict[int, Tensor] = {}

    def save(x: Tensor) -> Tensor:
        saved[x.untyped_storage().data_ptr()] = x
        return x

    mixed = torch.autocast("cpu", products, enabled=products != torch.float32, cache_enabled=False)
    with torch.autograd.graph.saved_tensors_hooks(save, lambda x: x), mixed:
        features = net.head.features(net.hidden(tokens, source_BS=source)).flatten(0, 1)
        loss = linear_cross_entropy(features, net.head.matrix(), tokens.flatten())
    assert loss.requires_grad
    kept = [x for at, x in saved.items() if at not in parameters]
    return sum(x.untyped_storage().nbytes() for x in kept)


def micro(config: TransformerConfig, **changes: Any) -> Micro:
    source = LENGTH if config.kind == "encoder_decoder" else 0
    how = {"rows": ROWS, "target": LENGTH, "asked": LENGTH, "source": source, "on_cpu": True}
    return Micro(**{**how, **changes})


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", CASES)
def test_what_is_kept_is_what_autograd_saves(name: str, products: torch.dtype) -> None:
    config = CASES[name]
    kept = rehearse(config, micro(config, products=products), AdamW()).kept
    assert kept == pytest.approx(kept_by_autograd(config, products), rel=0.03)


@pytest.mark.parametrize("recipe", [AdamW(), Muon(), Adafactor()], ids=lambda r: type(r).__name__)
def test_weights_gradients_and_state_are_those_of_a_real_step(recipe: OptimizerRecipe) -> None:
    config = network("decoder")
    played = rehearse(config, micro(config), recipe)
    assert played.weights == played.gradients == 4 * count_parameters(config)["total"]
    net = Transformer(config)
    optimizer = recipe.build(net)
    for weight in net.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    state = [x for parts in optimizer.state.values() for x in parts.values()]
    assert played.optimizer == sum(x.nbytes for x in state if isinstance(x, Tensor))


def test_what_a_gpu_keeps_grows_with_the_length_and_not_with_its_square() -> None:
    config = replace(network("encoder"), max_seq_len=3 * LENGTH)

    def bend(on_cpu: bool) -> int:
        once, twice, thrice = (
            rehearse(config, micro(config, target=n, asked=n, on_cpu=on_cpu), AdamW()).kept
            for n in (LENGTH, 2 * LENGTH, 3 * LENGTH)
        )
        return once - 2 * twice + thrice

    scores = 2 * ROWS * 2 * LENGTH**2 * 4  # layers, rows, heads, queries times keys, float32
    assert abs(bend(on_cpu=False)) < 0.01 * scores
    assert bend(on_cpu=True) > scores


def test_weights_of_bfloat16_take_half() -> None:
    config = network("decoder")
    low = micro(config, weights=torch.bfloat16, products=torch.bfloat16, on_cpu=False)
    halved, whole = (rehearse(config, how, AdamW()) for how in (low, micro(config, on_cpu=False)))
    assert halved.weights * 2 == whole.weights
    assert halved.kept < 0.7 * whole.kept
