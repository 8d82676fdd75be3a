"""What an encoder finds likeliest where a text has masks."""

import numpy as np
import torch

from gpt4o_lit.generation.prefill import PLAIN, UNCOMPILED, PromptFormat
from gpt4o_lit.model import Transformer
from gpt4o_lit.tokenizer import Tokenizer

# B batch, T tokens, V vocab


@torch.inference_mode()
def fill(
    transformer: Transformer,
    tokenizer: Tokenizer,
    text: str,
    mask: str = "<mask>",
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
