"""Positions against the formulas of their papers."""

import math

import torch

from gpt4o_lit.model.position import sinusoids


def test_sinusoids_are_exact_far_from_the_start():
    dim, places = 16, torch.tensor([[0, 1, 511, 4095, 100_000]])
    found = sinusoids(places, dim, 10_000.0)
    for column, place in enumerate(places[0].tolist()):
        angles = [place / 10_000 ** (2 * i / dim) for i in range(dim // 2)]
        expected = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        torch.testing.assert_close(found[0, column], torch.tensor(expected), atol=1e-6, rtol=0)
