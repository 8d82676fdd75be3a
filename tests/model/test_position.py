"""Positions against the formulas of their papers."""

import math

import pytest
import torch

from gpt4o_lit.model.config import PositionConfig
from gpt4o_lit.model.position import AlibiBias, Rotary, sinusoids
from tests.model.conftest import network

TABLES = {"rotary": lambda: Rotary(PositionConfig(), 64), "alibi": lambda: AlibiBias(12)}


def test_sinusoids_are_exact_far_from_the_start():
    dim, places = 16, torch.tensor([[0, 1, 511, 4095, 100_000]])
    found = sinusoids(places, dim, 10_000.0)
    for column, place in enumerate(places[0].tolist()):
        angles = [place / 10_000 ** (2 * i / dim) for i in range(dim // 2)]
        expected = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        torch.testing.assert_close(found[0, column], torch.tensor(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("cast", ["bfloat16", "half", "double"])
def test_casting_a_network_leaves_its_angles_and_slopes(kind: str, cast: str) -> None:
    table, places = TABLES[kind](), torch.arange(2000)[None]
    before = table(places)
    torch.testing.assert_close(getattr(table, cast)()(places), before, atol=0, rtol=0)


@pytest.mark.parametrize("kind", TABLES)
def test_a_network_that_is_born_in_bfloat16_has_the_same_angles_and_slopes(kind: str) -> None:
    expected = TABLES[kind]().values
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = TABLES[kind]().values
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


@pytest.mark.parametrize("position", ["rotary", "alibi", "sinusoidal"])
def test_no_position_hides_in_a_checkpoint_or_in_a_buffer_that_casts_round(position: str) -> None:
    net = network("decoder", position)
    assert not any("bits" in name for name in net.state_dict())
    assert not any(buffer.is_floating_point() for buffer in net.buffers())


def test_sinusoids_are_rounded_once_when_they_are_added() -> None:
    stack = network("decoder", "sinusoidal").bfloat16().decoder
    places = torch.arange(64)[None]
    added = stack._embed(torch.zeros(1, 64, 32, dtype=torch.bfloat16), places)
    assert torch.equal(added, sinusoids(places, 32, 10_000.0).bfloat16())
