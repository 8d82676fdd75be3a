"""Products of whole numbers in training: what they round, and what they leave exact."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gpt4o_lit.compression import Int8Products, Targets, use_int8_products_
from gpt4o_lit.compression.int8_products import ROWS
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.linear import Linear
from tests.model.conftest import VOCAB, network


def rounded(x: Tensor) -> Tensor:
    """Each row to the nearest of 127 steps on either side of 0, one number after the other."""
    rows = []
    for row in x.double().flatten(0, -2):
        step = float(max(abs(float(value)) for value in row)) / 127
        rows.append([round(float(value) / step) * step if step else 0.0 for value in row])
    return torch.tensor(rows, dtype=torch.float64).view(x.shape)


@pytest.fixture
def given() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, W, b and the slopes at the product."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 9, 24), torch.randn(16, 24) * torch.rand(16, 1)
    x[0, 3], weight[5] = 0.0, 0.0  # have no largest number
    each = (x, weight, torch.randn(16))
    return *(tensor.requires_grad_() for tensor in each), torch.randn(2, 9, 16)  # type: ignore[return-value]


def test_both_are_rounded_by_rows(given: tuple[Tensor, ...]) -> None:
    x, weight, bias, _ = given
    expected = rounded(x.detach()) @ rounded(weight.detach()).T + bias.detach()
    torch.testing.assert_close(Int8Products()(x, weight, bias).double(), expected,
                               atol=1e-5, rtol=0)  # fmt: skip


def test_slopes_are_rounded_for_inputs_and_exact_for_weights(given: tuple[Tensor, ...]) -> None:
    x, weight, bias, slope = given
    got = torch.autograd.grad(Int8Products()(x, weight, bias), (x, weight, bias), slope)
    exact = torch.autograd.grad(F.linear(x, weight, bias), (x, weight, bias), slope)
    torch.testing.assert_close(got[1:], exact[1:])
    steps_O = weight.detach().abs().amax(1).double() / 127
    whole_OI = rounded(weight.detach()) / steps_O.clamp(min=1e-30)[:, None]
    expected = rounded(slope.double() * steps_O) @ whole_OI
    torch.testing.assert_close(got[0].double(), expected, atol=1e-5, rtol=0)
    assert (got[0] - exact[0]).norm() < 0.02 * exact[0].norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_decides_what_comes_out(given: tuple[Tensor, ...], dtype: torch.dtype) -> None:
    x, weight, bias, slope = given
    with torch.autocast("cpu", dtype):
        y = Int8Products()(x, weight, bias)
    assert y.dtype == dtype
    tiny = slope.to(dtype) * 1e-4  # whose steps float16 lacks
    slopes = torch.autograd.grad(y, (x, weight, bias), tiny)
    assert {each.dtype for each in slopes} == {torch.float32}
    exact = torch.autograd.grad(F.linear(x, weight, bias), (x, weight, bias), tiny.float())
    for got, wanted in zip(slopes, exact, strict=True):
        assert (got - wanted).norm() < 0.02 * wanted.norm()


def test_many_rows_are_as_few(given: tuple[Tensor, ...]) -> None:
    _, weight, _, _ = given
    x = torch.randn(2 * ROWS + 3, 24)
    apart = torch.cat([Int8Products()(row, weight, None) for row in x.split(7)])
    assert torch.equal(Int8Products()(x, weight, None), apart)


def test_what_is_not_finite_is_seen(given: tuple[Tensor, ...]) -> None:
    x, weight, _, _ = given
    for value in (float("inf"), float("nan")):
        wrong = x.detach().clone()
        wrong[1, 2, 3] = value
        assert Int8Products()(wrong, weight, None)[1, 2].isnan().all()


def test_frozen_weights_have_no_slopes(given: tuple[Tensor, ...]) -> None:
    x, weight, _, _ = given
    Int8Products()(x, weight.detach(), None).sum().backward()
    assert weight.grad is None
    assert x.grad is not None


def test_compiled_it_is_the_same(given: tuple[Tensor, ...]) -> None:
    x, weight, bias, slope = given
    both = []
    for products in (Int8Products(), torch.compile(Int8Products(), dynamic=False)):
        y = products(x, weight, bias)
        both.append((y, *torch.autograd.grad(y, (x, weight, bias), slope)))
    torch.testing.assert_close(*both, atol=1e-5, rtol=1e-5)


def loss(net: Transformer) -> Tensor:
    tokens = torch.arange(24).view(2, 12) % VOCAB
    both = net.encoder is not None and net.decoder is not None
    out = net(tokens, source_BS=tokens) if both else net(tokens)
    return out.square().mean()  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder_decoder"])
def test_a_network_rounds_in_training_alone(kind: str) -> None:
    net, plain = network(kind), network(kind)
    plain.load_state_dict(net.state_dict())
    use_int8_products_(net, Targets())
    assert net.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(loss(net), loss(plain))
    losses = [loss(each.train()) for each in (net, plain)]
    assert not torch.equal(*losses)
    torch.testing.assert_close(*losses, atol=0, rtol=0.01)
    got, wanted = (
        torch.cat([slope.flatten() for slope in torch.autograd.grad(each, [*of.parameters()])])
        for each, of in zip(losses, (net, plain), strict=True)
    )
    assert F.cosine_similarity(got, wanted, dim=0) > 0.99  # of eight products in a row and more
    multiplied = [name for name, part in net.named_modules() if isinstance(part, Int8Products)]
    assert len(multiplied) == len(Targets().weights(net))


def test_what_cannot_be_multiplied_is_refused_in_one_line() -> None:
    for targets, message in (
        (Targets(names=("*.qvk",)), r"\*.qvk matches no layer"),
        (Targets(kinds=("embeddings",)), r"tokens is no product .* take its kind out of targets"),
    ):
        with pytest.raises(ValueError, match=message):
            use_int8_products_(network("decoder"), targets)
    net = network("decoder")
    layer = net.get_submodule("decoder.blocks.1.feed_forward")
    layer.up = Linear(32, 68)
    with pytest.raises(ValueError, match=r"1.feed_forward.up \(68 x 32\) must .* multiple of 8"):
        use_int8_products_(net, Targets())
