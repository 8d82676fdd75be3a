"""float8: numbers and their kernel by the definition, and all that quantizing is, with them."""

from pathlib import Path

import pytest
import torch

from gpt4o_lit.compression import Formats, round_
from gpt4o_lit.compression.fake import FakeQuantization, fake_quantize
from gpt4o_lit.compression.rounding import gptq, round_to_nearest
from gpt4o_lit.interop.compressed import load_compressed, save_compressed
from gpt4o_lit.interop.gguf_blocks import require_blocks
from gpt4o_lit.interop.onnx_numbers import WeightInGraph
from gpt4o_lit.model.products import Float8Product
from gpt4o_lit.model.quantized import QuantizedWeight, count_nonzeros, formats_of, weight_bytes
from gpt4o_lit.model.weight_format import FLOAT8, WeightFormat, round_inputs
from gpt4o_lit.tokenizer import ByteTokenizer
from tests.compression.test_activation_aware import matrix_and_inputs
from tests.model.conftest import VOCAB, network

FORMAT = WeightFormat(number="float", rounds_inputs=True)
# Sign, 4 bits of exponent from 2 ** -6 on and below it in even steps, 3 bits of mantissa.
ALL = torch.tensor(
    [(8 + m) * 2.0 ** (e - 10) for e in range(1, 16) for m in range(8) if (e, m) != (15, 7)]
    + [m * 2.0**-9 for m in range(8)]
)


def test_numbers_are_the_nearest_that_there_are() -> None:
    x = torch.cat([torch.randn(500) * 10.0 ** torch.randint(-3, 3, (500,)), torch.tensor([1e4])])
    every = torch.cat([ALL, -ALL])
    expected = (x.clamp(-448, 448)[:, None] - every).abs().amin(1)
    found = FORMAT.nearest_(x.clone())
    torch.testing.assert_close((found - x.clamp(-448, 448)).abs(), expected, atol=0, rtol=1e-5)
    assert torch.isin(found, every).all()


def test_a_row_spans_its_numbers_and_rounds_to_itself() -> None:
    weight = torch.randn(6, 32) * 3
    numbers, scales = round_to_nearest(weight, FORMAT)
    assert (numbers.dtype, scales.shape) == (FLOAT8, (6, 1))
    assert (scales > 0).all()
    assert (numbers.float().abs().amax(1) == 448).all()
    restored = FORMAT.restore(numbers, scales)
    assert ((restored - weight).abs() <= weight.abs() * 2**-4 + scales * 2**-10).all()
    assert torch.equal(FORMAT.round(restored, scales).float(), numbers.float())
    zeros, _ = round_to_nearest(torch.zeros(2, 16), FORMAT)
    assert not zeros.float().any()


@pytest.mark.parametrize("learned", [False, True])
def test_training_sees_what_conversion_gives(learned: bool) -> None:
    weight, x = torch.randn(5, 32, requires_grad=True), torch.randn(3, 32)
    layer = FakeQuantization(FORMAT, weight, "learned" if learned else "of_weight")
    scales = layer.scales_of(weight)
    prepared = layer.weight(weight)
    restored = FORMAT.restore(FORMAT.round(weight.detach(), scales), scales)
    torch.testing.assert_close(prepared, restored, atol=1e-6, rtol=1e-6)
    numbers, steps = round_inputs(x, "float")
    assert torch.equal(layer.inputs(x), numbers * steps)
    slope = torch.randn(5, 32)
    fake_quantize(weight, FORMAT).backward(slope)
    assert torch.equal(weight.grad, slope)  # type: ignore[arg-type]


def test_gptq_changes_less_of_what_a_layer_gives() -> None:
    weight, inputs = matrix_and_inputs(64, 96)
    gram_II = inputs.T @ inputs
    errors = [
        float((inputs @ (FORMAT.restore(*rounded) - weight).T).square().sum())
        for rounded in (gptq(weight, gram_II, FORMAT), round_to_nearest(weight, FORMAT))
    ]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("outputs", [32, 37])
@pytest.mark.parametrize("rows", [1, 5])
def test_its_kernel_gives_the_product(outputs: int, rows: int) -> None:
    """Also where outputs are no multiple of what it reads at once."""
    weight = QuantizedWeight.rounding(torch.randn(outputs, 64), FORMAT)
    numbers, _ = round_inputs(torch.randn(rows, 64), "float")
    found = Float8Product(weight.each_number(), weight.scales, FORMAT)(numbers)
    torch.testing.assert_close(found, numbers @ weight.restored().T, rtol=1e-5, atol=1e-2)


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (9, 0),
    reason="float8 products need a GPU from Hopper on",
)
def test_a_network_of_float8_runs_on_its_kernel() -> None:
    net = network("decoder").cuda()
    tokens = torch.randint(VOCAB, (2, 9), device="cuda")
    with torch.no_grad():
        dense = net(tokens)
        round_(net, Formats(format=FORMAT).of(net))
        found = net(tokens)
    assert net.decoder.blocks[0].feed_forward.down.weight.kernel(18, compiled=False) == "float8"  # type: ignore
    assert (found - dense).norm() < 0.2 * dense.norm()  # on a CPU it is 0.14


def test_a_network_of_float8_is_a_quarter_and_stays_so_when_it_is_cast(tmp_path: Path) -> None:
    net = network("decoder")
    dense, tokens = weight_bytes(net), torch.randint(VOCAB, (2, 9))
    with torch.no_grad():
        before = net(tokens)
        round_(net, Formats(format=FORMAT).of(net))
        found = net(tokens)
    assert (found - before).norm() < 0.2 * before.norm()  # 3 bits of mantissa, weights as drawn
    assert 0.25 < weight_bytes(net) / dense < 0.45  # rows of 32 inputs have a scale of 4 bytes
    assert set(formats_of(net).values()) == {FORMAT}
    assert count_nonzeros(net) > 0.9 * sum(w.shape.numel() for w in net.state_dict().values()) / 2
    save_compressed(net, ByteTokenizer(), tmp_path / "small", {})
    again, _ = load_compressed(tmp_path / "small")
    numbers = net.tokens.weight.numbers  # type: ignore[union-attr]
    with torch.no_grad():
        assert torch.equal(again(tokens), found)
        assert torch.equal(net.bfloat16().tokens.weight.numbers, numbers)  # type: ignore[union-attr]
        half = net(tokens).float()
    assert (half - found).norm() < 0.2 * found.norm()  # as far as float8 is from float32 above


def test_formats_without_float8_refuse_it() -> None:
    weight = QuantizedWeight.rounding(torch.randn(32, 32), FORMAT)
    with pytest.raises(ValueError, match=r"gguf: a\.up has float8"):
        require_blocks("a.up", weight)
    with pytest.raises(ValueError, match="MatMulNBits reads whole numbers"):
        WeightInGraph.like(weight)
    with pytest.raises(ValueError, match=r"its 24 inputs must be a multiple of what float8 .*16"):
        FORMAT.require_width("a.up", 24)
