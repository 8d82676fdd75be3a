"""What we read from a directory of Hugging Face computes what their model computes."""

import pytest
import torch
from torch import Tensor

from gpt4o_lit.interop import open_hugging_face
from gpt4o_lit.model import token_types

from .tiny_hugging_face import DECODERS, ENCODERS, PAIRS

# B batch, T target tokens, S source tokens


def padded(lengths: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """Random tokens, and 1 where they are real, 0 where they are padding."""
    torch.manual_seed(seed)
    tokens_BT = torch.randint(60, (len(lengths), max(lengths)))
    real_BT = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return tokens_BT, real_BT


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > 0.1, "logits so small would agree whatever we did"
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
@torch.no_grad()
def test_our_logits_equal_theirs_with_padding(name: str, saved) -> None:
    model, directory = saved(name)
    transformer = open_hugging_face(directory)
    tokens_BT, real_BT = padded([14, 9, 5], seed=1)
    theirs = model(input_ids=tokens_BT, attention_mask=real_BT).logits
    ours = transformer(tokens_BT, documents_BT=real_BT - 1)
    assert_same(ours[real_BT == 1], theirs[real_BT == 1])
    assert_same(transformer(tokens_BT[:1]), theirs[:1])


@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
@torch.no_grad()
def test_packed_documents_equal_their_logits_of_each_alone(name: str, saved) -> None:
    model, directory = saved(name)
    tokens_BT, _ = padded([13], seed=2)
    documents_BT = torch.tensor([[0] * 6 + [1] * 7])
    ours = open_hugging_face(directory)(tokens_BT, documents_BT=documents_BT)
    assert_same(ours[:, :6], model(input_ids=tokens_BT[:, :6]).logits)
    assert_same(ours[:, 6:], model(input_ids=tokens_BT[:, 6:]).logits)


@torch.no_grad()
def test_our_logits_of_two_texts_equal_theirs(saved) -> None:
    model, directory = saved("bert")
    transformer = open_hugging_face(directory)
    tokens_BT, real_BT = padded([14, 9, 5], seed=1)
    tokens_BT[tokens_BT == 2] = 3
    tokens_BT[:, 3] = 2  # ends the first text
    types_BT = (torch.arange(14) > 3).long().expand(3, -1)
    theirs = model(input_ids=tokens_BT, attention_mask=real_BT, token_type_ids=types_BT).logits
    ours = transformer(
        tokens_BT, documents_BT=real_BT - 1, types_BT=token_types(transformer, tokens_BT, eos_id=2)
    )
    assert_same(ours[real_BT == 1], theirs[real_BT == 1])


@pytest.mark.parametrize("name", PAIRS)
@torch.no_grad()
def test_our_encoder_decoder_equals_theirs_with_source_padding(name: str, saved) -> None:
    model, directory = saved(name)
    transformer = open_hugging_face(directory)
    source_BS, real_BS = padded([17, 9, 5], seed=3)
    tokens_BT, real_BT = padded([12, 12, 7], seed=4)
    theirs = model(
        input_ids=source_BS,
        attention_mask=real_BS,
        decoder_input_ids=tokens_BT,
        decoder_attention_mask=real_BT,
    ).logits
    ours = transformer(
        tokens_BT,
        source_BS=source_BS,
        documents_BT=real_BT - 1,
        source_documents_BS=real_BS - 1,
    )
    assert_same(ours[real_BT == 1], theirs[real_BT == 1])
    whole = transformer(tokens_BT, source_BS=source_BS, source_documents_BS=real_BS - 1)
    assert_same(whole[real_BT == 1], theirs[real_BT == 1])
