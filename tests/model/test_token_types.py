"""A network with token types is told which text a piece is of, and whether both texts have it."""

import pytest
import torch

from gpt4o_lit.model import token_types

from .conftest import network

EOS = 2
ROWS = torch.tensor([[1, 7, 8, EOS, 9, 8, 8, 1, EOS, 0], [1, 7, 8, 9, EOS, 0, 0, 0, 0, 0]])


@pytest.mark.parametrize("num_types", [0, 1])
def test_a_network_without_types_is_told_none(num_types: int) -> None:
    assert token_types(network("encoder", num_token_types=num_types), ROWS, EOS) is None


def test_the_second_text_is_of_the_second_type() -> None:
    types = token_types(network("encoder", num_token_types=2), ROWS, EOS)
    assert types is not None
    assert types.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]]


def test_what_the_first_text_has_too_is_of_the_third() -> None:
    types = token_types(network("encoder", num_token_types=3), ROWS, EOS)
    assert types is not None
    assert types[0, :9].tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 1]
    assert types[1, :5].tolist() == [0, 0, 0, 0, 0]


@torch.no_grad()
def test_types_are_read_and_the_first_is_for_rows_without() -> None:
    net = network("encoder", num_token_types=3)
    types = token_types(net, ROWS, EOS)
    plain = net(ROWS)
    assert torch.equal(net(ROWS, types_BT=torch.zeros_like(ROWS)), plain)
    assert (net(ROWS, types_BT=types) - plain).abs().max() > 1e-3
