"""Laws that hold for every tokenizer, whatever it was made from."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt4o_lit.tokenizer import Tokenizer, load_tokenizer
from gpt4o_lit.tokenizer.tokenizer import SPECIAL_PIECES

AWKWARD = (
    *SPECIAL_PIECES,
    *("\n", "\n\n", "\r\n", "\t", "  ", "   \n", "\0", "\u2581", "\u2585", "\u2047", "\ufeff"),
    *("<0x0A>", "<0xE2>", "春眠", "😀", "👩‍👩‍👧", "e\u0301", "\u00a0", "\u3000", "a", " b"),
)
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",))),
    st.lists(st.sampled_from(AWKWARD)).map("".join),
)
SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(text=TEXTS)
@SETTINGS
def test_decoding_undoes_encoding(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=TEXTS)
@SETTINGS
def test_text_never_becomes_a_special_id(tokenizer: Tokenizer, text: str) -> None:
    assert not set(tokenizer.encode(text)) & set(tokenizer.special_ids)


@given(text=TEXTS)
@SETTINGS
def test_token_bytes_add_up_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert b"".join(tokenizer.spellings[id] for id in ids) == text.encode()
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())


@given(texts=st.lists(TEXTS, max_size=4))
@SETTINGS
def test_flat_and_batch_and_single_encoding_agree(tokenizer: Tokenizer, texts: list[str]) -> None:
    batch = [tokenizer.encode(text) for text in texts]
    flat, lengths = tokenizer.encode_flat(texts)
    assert tokenizer.encode_batch(texts) == batch
    assert flat.tolist() == [id for ids in batch for id in ids]
    assert lengths.tolist() == [len(ids) for ids in batch]


def test_long_texts_encode_flat_as_they_do_alone(tokenizer: Tokenizer, text: str) -> None:
    flat, lengths = tokenizer.encode_flat([text, text[:2000]])
    assert flat.tolist() == tokenizer.encode(text) + tokenizer.encode(text[:2000])
    assert lengths.tolist() == [len(tokenizer.encode(text)), len(tokenizer.encode(text[:2000]))]


def test_every_special_piece_has_an_id_of_its_own(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.mask_id]
    ids += [*tokenizer.sentinel_ids, *tokenizer.role_ids.values(), *tokenizer.fim_ids.values()]
    assert len(tokenizer.sentinel_ids) == 100
    assert tokenizer.role_ids.keys() == {"system", "user", "assistant", "end"}
    assert tokenizer.fim_ids.keys() == {"prefix", "suffix", "middle"}
    assert len(set(ids)) == len(ids)
    assert set(ids) <= set(tokenizer.special_ids) <= set(range(tokenizer.vocab_size))
    assert tokenizer.decode(ids) == ""
    assert [tokenizer.piece(id) for id in tokenizer.sentinel_ids[:2]] == [
        "<extra_id_0>",
        "<extra_id_1>",
    ]


def test_tables_have_a_row_for_each_id(tokenizer: Tokenizer) -> None:
    special = list(tokenizer.special_ids)
    assert tokenizer.token_bytes.shape == tokenizer.starts_word.shape == (tokenizer.vocab_size,)
    assert tokenizer.token_bytes.dtype == np.int32
    assert tokenizer.token_bytes[special].sum() == 0
    assert not tokenizer.starts_word[special].any()


def test_a_word_starts_at_each_space(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the cat sat")
    assert tokenizer.starts_word[ids].sum() == 2
    assert not tokenizer.starts_word[ids[0]]  # nothing stands before the first word


def test_saving_and_loading_change_nothing(tokenizer: Tokenizer, text: str, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "t")
    loaded = load_tokenizer(tmp_path / "t")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.special_ids == tokenizer.special_ids


def test_foreign_ids_are_named(tokenizer: Tokenizer) -> None:
    size = tokenizer.vocab_size
    with pytest.raises(ValueError, match=rf"id \({size}\) must be in 0..{size - 1}"):
        tokenizer.decode([0, size])


def test_broken_utf8_is_replaced_and_not_raised(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("😀")[:2]
    assert "\ufffd" in tokenizer.decode(ids)
