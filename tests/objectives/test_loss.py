"""The chunked loss equals the plain one, in value and slope, and never holds all logits."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gpt4o_lit.objectives import linear_cross_entropy, token_statistics


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any result of any operation had, and counts products."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0
        self.num_products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        self.num_products += "mm" in func.__name__
        results = result if isinstance(result, tuple | list) else (result,)
        sizes = [r.untyped_storage().nbytes() for r in results if isinstance(r, Tensor)]
        self.numel = max([self.numel, *(size // 4 for size in sizes)])
        return result


def operands(
    num: int = 64, dim: int = 16, vocab_size: int = 101, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    features_ND = torch.randn(num, dim, dtype=dtype, requires_grad=True)
    weight_VD = torch.randn(vocab_size, dim, dtype=dtype, requires_grad=True)
    bias_V = torch.randn(vocab_size, dtype=dtype, requires_grad=True)
    targets_N = torch.randint(vocab_size, (num,))
    targets_N[::5] = -100
    return features_ND, weight_VD, bias_V, targets_N


def plain(
    features_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Tensor:
    logits_NV = F.linear(features_ND, weight_VD, bias_V).float()
    if softcap is not None:
        logits_NV = softcap * torch.tanh(logits_NV / softcap)
    loss = F.cross_entropy(logits_NV, targets_N, reduction="sum", label_smoothing=label_smoothing)
    return loss + z_loss * logits_NV.logsumexp(1)[targets_N != -100].square().sum()


OPTIONS: list[dict[str, float]] = [
    {},
    {"softcap": 5.0},
    {"label_smoothing": 0.1},
    {"z_loss": 1e-2},
    {"softcap": 5.0, "label_smoothing": 0.1, "z_loss": 1e-2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("chunk_size", [1, 7, 64, None])
def test_equals_cross_entropy_of_the_linear(
    options: dict[str, float], chunk_size: int | None
) -> None:
    features_ND, weight_VD, bias_V, targets_N = operands()
    ours = linear_cross_entropy(
        features_ND, weight_VD, targets_N, bias=bias_V, chunk_size=chunk_size, **options
    )
    theirs = plain(features_ND, weight_VD, bias_V, targets_N, **options)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-5)
    inputs = (features_ND, weight_VD, bias_V)
    for mine, other in zip(
        torch.autograd.grad(ours * 0.25, inputs),
        torch.autograd.grad(theirs * 0.25, inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_slopes_are_those_of_finite_differences(options: dict[str, float]) -> None:
    features_ND, weight_VD, bias_V, targets_N = operands(7, 5, 11, torch.float64)
    assert torch.autograd.gradcheck(
        lambda f, w, b: linear_cross_entropy(f, w, targets_N, bias=b, chunk_size=2, **options),
        (features_ND, weight_VD, bias_V),
    )


def test_all_logits_never_exist_at_once() -> None:
    num, vocab_size, chunk_size = 512, 1000, 64
    features_ND, weight_VD, _, targets_N = operands(num, 8, vocab_size)
    with LargestTensor() as seen:
        plain(features_ND, weight_VD, None, targets_N).backward()
    assert seen.numel >= num * vocab_size
    with LargestTensor() as seen:
        linear_cross_entropy(features_ND, weight_VD, targets_N, chunk_size=chunk_size).backward()
    assert seen.numel <= chunk_size * vocab_size
    with LargestTensor() as seen:
        token_statistics(features_ND, weight_VD, targets_N, chunk_size=chunk_size)
    assert seen.numel <= chunk_size * vocab_size


def test_only_gradients_are_kept_for_the_backward() -> None:
    features_ND, weight_VD, _, targets_N = operands()
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        linear_cross_entropy(features_ND, weight_VD, targets_N)
    assert (64, 101) not in kept
    assert kept.count(weight_VD.shape) == 1


def test_without_grad_no_gradient_is_computed() -> None:
    features_ND, weight_VD, _, targets_N = operands()
    with torch.no_grad(), LargestTensor() as seen:
        loss = linear_cross_entropy(features_ND, weight_VD, targets_N)
    assert not loss.requires_grad
    assert seen.num_products == 1


def test_a_frozen_weight_costs_no_gradient() -> None:
    features_ND, weight_VD, _, targets_N = operands()
    linear_cross_entropy(features_ND, weight_VD.detach(), targets_N).backward()
    assert features_ND.grad is not None
    assert weight_VD.grad is None


def test_a_tied_weight_gets_both_gradients() -> None:
    table = torch.nn.Embedding(101, 16)
    tokens_N, targets_N = torch.randint(101, (32,)), torch.randint(101, (32,))
    linear_cross_entropy(table(tokens_N), table.weight, targets_N, chunk_size=8).backward()
    ours = table.weight.grad
    table.weight.grad = None
    plain(table(tokens_N), table.weight, None, targets_N).backward()
    torch.testing.assert_close(ours, table.weight.grad, atol=1e-5, rtol=1e-4)


def test_autocast_gives_the_loss_of_the_plain_autocast() -> None:
    features_ND, weight_VD, bias_V, targets_N = operands()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = linear_cross_entropy(features_ND, weight_VD, targets_N, bias=bias_V, chunk_size=9)
        theirs = plain(features_ND, weight_VD, bias_V, targets_N)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=0.0)
    inputs = (features_ND, weight_VD, bias_V)
    for mine, other in zip(
        torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True
    ):
        assert mine.dtype == other.dtype
        assert F.cosine_similarity(mine.flatten(), other.flatten(), dim=0) > 0.9995


def test_backward_twice_gives_the_same_gradient_twice() -> None:
    features_ND, weight_VD, _, targets_N = operands()
    loss = linear_cross_entropy(features_ND, weight_VD, targets_N) / 3
    (once,) = torch.autograd.grad(loss, weight_VD, retain_graph=True)
    (again,) = torch.autograd.grad(loss, weight_VD)
    assert torch.equal(once, again)


def test_unlikely_targets_have_a_finite_loss() -> None:
    features_ND = torch.tensor([[200.0]])
    weight_VD = torch.tensor([[1.0], [-1.0]])
    loss = linear_cross_entropy(features_ND, weight_VD, torch.tensor([1]))
    assert loss.item() == pytest.approx(400.0)


def test_nothing_asked_costs_nothing() -> None:
    features_ND, weight_VD, _, targets_N = operands()
    loss = linear_cross_entropy(features_ND, weight_VD, torch.full_like(targets_N, -100))
    loss.backward()
    assert loss.item() == 0.0
    assert weight_VD.grad is not None
    assert not weight_VD.grad.any()


def test_token_statistics_add_up_to_the_loss() -> None:
    features_ND, weight_VD, bias_V, targets_N = operands()
    nll_N, correct_N = token_statistics(
        features_ND, weight_VD, targets_N, bias=bias_V, softcap=4.0, chunk_size=7
    )
    loss = linear_cross_entropy(features_ND, weight_VD, targets_N, bias=bias_V, softcap=4.0)
    torch.testing.assert_close(nll_N.sum(), loss, atol=1e-3, rtol=1e-5)
    first_N = F.linear(features_ND, weight_VD, bias_V).argmax(dim=1)
    assert torch.equal(correct_N, first_N == targets_N)
    assert not nll_N[targets_N == -100].any()


def test_a_compiled_caller_gets_the_same_loss() -> None:
    features_ND, weight_VD, _, targets_N = operands()
    compiled = torch.compile(lambda f, w, t: linear_cross_entropy(f * 2, w, t) * 3, backend="eager")
    expected = linear_cross_entropy(features_ND * 2, weight_VD, targets_N) * 3
    torch.testing.assert_close(compiled(features_ND, weight_VD, targets_N), expected)


def test_a_chunk_of_nothing_is_refused() -> None:
    features_ND, weight_VD, _, targets_N = operands()
    with pytest.raises(ValueError, match=r"chunk_size \(0\) must be at least 1"):
        linear_cross_entropy(features_ND, weight_VD, targets_N, chunk_size=0)
