"""Every kernel computes softmax(QK^T / sqrt(d)) V, and the same slopes of it."""

import pytest
import torch
from torch import Tensor

from gpt4o_lit.model import Mask, attend, attention_weights, blocked
from gpt4o_lit.model.mask import self_mask

# B batch, T query tokens, S key tokens, N query heads, K key heads, H head_dim
B, N, H = 3, 4, 8


def operands(length: int, keys: int, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    shapes = ((length, N), (keys, heads), (keys, heads))
    q, k, v = (torch.randn(B, many, of, H).requires_grad_() for many, of in shapes)
    return q, k, v


def make_mask(kind: str, length: int, keys: int) -> Mask:
    places = torch.arange(length)[None]
    documents = (torch.arange(length) // 50).expand(B, -1).clone()
    documents[1] += torch.arange(length) > 7
    documents[2, length - 5 :] = -1
    if kind == "all" or length != keys:
        return Mask()
    if kind == "causal":
        return Mask(causal=True)
    if kind == "bias":
        bias = torch.randn(1, N, length, length, requires_grad=True)
        return self_mask(places, places, causal=True, dtype=bias.dtype, bias=bias)
    return self_mask(
        places,
        places,
        causal=kind != "documents of an encoder",
        dtype=torch.float32,
        documents_BT=documents,
        window=30 if kind == "window" else None,
        prefix_BT=documents % 2 == 0 if kind == "prefix" else None,
    )


def slopes(kernel: str, inputs: tuple[Tensor, ...], mask: Mask) -> list[Tensor]:
    """The output and the slope of a fixed function of it at q, k, v and a learned mask."""
    out = attend(*inputs, mask, kernel=kernel)
    learned = [mask.added] if mask.added is not None and mask.added.requires_grad else []
    weight = torch.linspace(-1, 1, out.numel()).view_as(out)
    return [out, *torch.autograd.grad((out * weight).sum(), [*inputs, *learned])]


@pytest.mark.parametrize("kernel", ["blocked", "sdpa"])
@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize(
    "kind",
    ["all", "causal", "bias", "documents", "documents of an encoder", "window", "prefix"],
)
@pytest.mark.parametrize(("length", "keys"), [(1, 1), (20, 20), (300, 300), (20, 300)])
def test_kernels_that_train_give_the_same_output_and_slopes(kernel, heads, kind, length, keys):
    inputs, mask = operands(length, keys, heads), make_mask(kind, length, keys)
    for ours, eager in zip(
        slopes(kernel, inputs, mask), slopes("eager", inputs, mask), strict=True
    ):
        torch.testing.assert_close(ours, eager, atol=1e-5, rtol=1e-5)


def test_weights_made_again_in_the_backward_equal_the_kept_ones(monkeypatch):
    inputs = operands(300, 300, 2)
    kept = slopes("blocked", inputs, Mask(causal=True))
    monkeypatch.setattr(blocked, "LONGEST_KEPT", 10)
    for ours, theirs in zip(slopes("blocked", inputs, Mask(causal=True)), kept, strict=True):
        assert torch.equal(ours, theirs)


def test_small_blocks_of_rows_equal_large_ones(monkeypatch):
    inputs, mask = operands(150, 150, 4), make_mask("documents", 150, 150)
    at_once = slopes("blocked", inputs, mask)
    monkeypatch.setattr(blocked, "BLOCK_BYTES", 1)
    for ours, theirs in zip(slopes("blocked", inputs, mask), at_once, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_blocked_slopes_are_the_limits_of_differences():
    inputs = tuple(x.detach()[:1, :6].double().requires_grad_() for x in operands(6, 6, 2))
    bias = torch.randn(1, N, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda q, k, v, bias: attend(q, k, v, Mask(added=bias), kernel="blocked"), (*inputs, bias)
    )


def test_dropped_weights_are_those_of_the_slopes():
    """With V the identity the output is the dropped weights themselves: zero or scaled up."""
    q, k = (torch.randn(1, 8, 2, 8, requires_grad=True) for _ in range(2))
    v = torch.eye(8)[None, :, None].expand(1, 8, 2, 8).clone().requires_grad_()
    torch.manual_seed(0)
    out = attend(q, k, v, Mask(), dropout=0.5, kernel="blocked")
    weights = attention_weights(q, k, Mask()).transpose(1, 2)
    alive = out != 0
    assert 0.2 < alive.float().mean() < 0.8
    torch.testing.assert_close(out, weights * alive * 2, atol=1e-6, rtol=1e-5)
    again = (weights * alive * 2).sum(dim=-1).square().sum()
    expected = torch.autograd.grad(again, [q, k])
    found = torch.autograd.grad(out.sum(dim=-1).square().sum(), [q, k])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_bfloat16_errs_little_more_than_sdpa():
    """Scores are rounded to bfloat16 before the softmax, where SDPA's kernel keeps float32."""
    exact_inputs = operands(256, 256, 4)
    inputs = tuple(x.detach().bfloat16().requires_grad_() for x in exact_inputs)
    exact = slopes("eager", tuple(x.detach().float().requires_grad_() for x in inputs), Mask(True))
    errors = {
        kernel: [
            (found.float() - right).norm() / right.norm()
            for found, right in zip(slopes(kernel, inputs, Mask(True)), exact, strict=True)
        ]
        for kernel in ("blocked", "sdpa")
    }
    for ours, theirs in zip(errors["blocked"], errors["sdpa"], strict=True):
        assert ours < 2 * theirs + 1e-3


def test_blocked_refuses_other_devices():
    q = torch.empty(1, 4, 2, 8, device="meta")
    with pytest.raises(ValueError, match=r"attention.kernel \(blocked\) is for CPUs"):
        attend(q, q, q, Mask(), kernel="blocked")
