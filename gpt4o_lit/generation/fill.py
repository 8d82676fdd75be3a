"""Filling what a text lacks: an encoder each mask, a decoder one gap."""

import numpy as np
import torch

from gpt4o_lit.generation.prefill import PLAIN, PromptFormat
from gpt4o_lit.generation.step import UNCOMPILED
from gpt4o_lit.model import Transformer
from gpt4o_lit.tokenizer import Tokenizer

# B batch, T tokens, V vocab

MASK = "<mask>"
"""Stands in a text for what it lacks."""


@torch.inference_mode()
def fill(
    transformer: Transformer,
    tokenizer: Tokenizer,
    text: str,
    mask: str = MASK,
    *,
    prompt_format: PromptFormat = PLAIN,
) -> str:
    """The text with each `mask` replaced by the piece that an encoder finds likeliest there.

    Raises:
        ValueError: the network has a decoder, or the text has no mask or is too long.
    """
    if transformer.decoder is not None:
        raise ValueError("this network has a decoder, which fills no masks; use `generate`")
    if mask not in text:
        raise ValueError(f"the text has no {mask} to fill; write {mask} where a piece is missing")
    first, *others = text.split(mask)
    # A part behind a mask opens no text, so no model puts a space in front of it.
    flat, lengths = tokenizer.encode_flat([first, *others], ["", *(mask[-1] for _ in others)])
    ids: list[int] = []
    for number, part in enumerate(np.split(flat, np.cumsum(lengths)[:-1])):
        ids += ([tokenizer.mask_id] if number else []) + part.tolist()
    ids = prompt_format.surround(ids, tokenizer)
    tokens_BT = torch.tensor([ids], device=transformer.head.weight.device)
    with torch.compiler.set_stance(UNCOMPILED):
        logits_BTV = transformer(tokens_BT)[..., : tokenizer.vocab_size]
    logits_BTV[..., list(tokenizer.special_ids)] = float("-inf")
    filled = torch.where(tokens_BT == tokenizer.mask_id, logits_BTV.argmax(-1), tokens_BT)
    return tokenizer.decode(filled[0].tolist())


def gap_prompt(tokenizer: Tokenizer, text: str, mask: str = MASK) -> list[int]:
    """What a decoder reads that is to fill the gap where `mask` stands: what comes before it, what
    comes behind it, and the mark that the middle follows (PSM of arXiv:2207.14255).

    Raises:
        ValueError: the text has no mask, or several.
    """
    if text.count(mask) != 1:
        raise ValueError(
            f"the prompt has {text.count(mask)} {mask}, but a decoder fills one gap; write {mask} "
            "once"
        )
    before, behind = text.split(mask)
    # What comes behind the gap opens no text, so no model puts a space in front of it.
    flat, (length, _) = tokenizer.encode_flat([before, behind], ["", mask[-1]])
    ids, marks = flat.tolist(), tokenizer.fim_ids
    return [
        marks["prefix"], *ids[:length], marks["suffix"], *ids[length:], marks["middle"]
    ]  # fmt: skip
