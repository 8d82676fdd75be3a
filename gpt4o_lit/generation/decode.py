"""Writing text, token by token, with a cache of keys and values."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gpt4o_lit.generation.sampling import SamplingConfig, sample
from gpt4o_lit.model import KVCache, Transformer
from gpt4o_lit.tokenizer import Tokenizer

# B batch, T tokens, S source tokens

UNFINISHED = "\ufffd"


def generate(
    transformer: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    config: SamplingConfig,
    *,
    add_bos: bool = False,
) -> list[str]:
    """What comes behind each prompt, or what an encoder-decoder answers to it.

    `add_bos` puts bos before each prompt, as a corpus with add_bos does before each document.

    Raises:
        ValueError: a prompt is longer than the context, or the network is an encoder alone.
    """
    ids: list[list[int]] = [[] for _ in prompts]
    texts = ["" for _ in prompts]
    done = [False for _ in prompts]
    for step_B in decode(transformer, tokenizer, prompts, config, add_bos=add_bos):
        for row, token in enumerate(step_B):
            if done[row]:
                continue
            if token == tokenizer.eos_id:
                done[row] = True
                continue
            ids[row].append(token)
            if config.stop:
                texts[row] = tokenizer.decode(ids[row])
                done[row] = _cut(texts[row], config.stop) is not None
        if all(done):
            break
    texts = [tokenizer.decode(row) for row in ids]
    return [text[: _cut(text, config.stop)] for text in texts]


def stream(
    transformer: Transformer,
    tokenizer: Tokenizer,
    prompt: str,
    config: SamplingConfig,
    *,
    add_bos: bool = False,
) -> Iterator[str]:
    """The same for one prompt, piece by piece; no character and no stop string is torn apart."""
    ids: list[int] = []
    shown = 0
    text = ""
    for (token,) in decode(transformer, tokenizer, [prompt], config, add_bos=add_bos):
        if token == tokenizer.eos_id:
            break
        ids.append(token)
        text = tokenizer.decode(ids)
        cut = _cut(text, config.stop)
        if cut is not None:
            yield text[shown:cut]
            return
        whole = text.rstrip(UNFINISHED)
        safe = len(whole) - _begun(whole, config.stop)
        if safe > shown:
            yield text[shown:safe]
            shown = safe
    if text[shown:]:
        yield text[shown:]


@torch.inference_mode()
def decode(
    transformer: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    config: SamplingConfig,
    *,
    add_bos: bool = False,
) -> Iterator[list[int]]:
    """One new token per prompt and step, until max_new_tokens or the context's end."""
    if transformer.decoder is None:
        raise ValueError(
            "this network is an encoder, which writes no text; use `fill` for its masks"
        )
    if not prompts:
        return
    weight, pieces = transformer.head.weight, tokenizer.vocab_size
    device, longest = weight.device, transformer.config.max_seq_len
    rows = [_encoded(tokenizer, prompt, longest, add_bos) for prompt in prompts]
    source_BS = documents_BS = None
    if transformer.encoder is not None:
        source_BS, documents_BS = _padded(rows, tokenizer.pad_id, device)
        rows = [[tokenizer.pad_id] for _ in rows]
    tokens_BT, documents_BT = _padded(rows, tokenizer.pad_id, device)
    room = min(longest, tokens_BT.shape[1] + config.max_new_tokens)
    cache = KVCache(transformer.config, len(rows), room, device, weight.dtype)
    seen_BV = torch.zeros(len(rows), pieces, dtype=torch.bool, device=device)
    for row, ids in enumerate(rows):
        seen_BV[row, ids] = True
    generator = torch.Generator(device).manual_seed(config.seed)
    hidden_BTD = transformer.hidden(
        tokens_BT,
        source_BS=source_BS,
        source_documents_BS=documents_BS,
        documents_BT=documents_BT,
        cache=cache,
    )
    last_B = torch.tensor([len(ids) - 1 for ids in rows], device=device)
    hidden_B1D = hidden_BTD[torch.arange(len(rows), device=device), last_B][:, None]
    for _ in range(min(config.max_new_tokens, room - tokens_BT.shape[1] + 1)):
        # A vocab_size rounded up has scores that no piece belongs to.
        logits_BV = transformer.head(hidden_B1D)[:, -1, :pieces].float()
        next_B = sample(logits_BV, config, generator, seen_BV)
        yield next_B.tolist()
        if cache.used == room:
            return
        seen_BV[torch.arange(len(rows), device=device), next_B] = True
        hidden_B1D = transformer.hidden(next_B[:, None], cache=cache)


@torch.inference_mode()
def fill(
    transformer: Transformer,
    tokenizer: Tokenizer,
    text: str,
    mask: str = "<mask>",
    *,
    add_bos: bool = False,
) -> str:
    """The text with each `mask` replaced by the piece that an encoder finds likeliest there.

    Raises:
        ValueError: the network has a decoder, or the text has no mask or is too long.
    """
    if transformer.decoder is not None:
        raise ValueError("this network has a decoder, which fills no masks; use `generate`")
    if mask not in text:
        raise ValueError(f"the text has no {mask} to fill; write {mask} where a piece is missing")
    ids = [tokenizer.bos_id] if add_bos else []
    for number, part in enumerate(text.split(mask)):
        ids += ([tokenizer.mask_id] if number else []) + tokenizer.encode(part)
    tokens_BT = torch.tensor([ids], device=transformer.head.weight.device)
    logits_BTV = transformer(tokens_BT)[..., : tokenizer.vocab_size]
    logits_BTV[..., list(tokenizer.special_ids)] = float("-inf")
    filled = torch.where(tokens_BT == tokenizer.mask_id, logits_BTV.argmax(-1), tokens_BT)
    return tokenizer.decode(filled[0].tolist())


def _encoded(tokenizer: Tokenizer, prompt: str, longest: int, add_bos: bool) -> list[int]:
    """The prompt's ids; an empty prompt is the end of a document, behind which another begins."""
    ids = ([tokenizer.bos_id] if add_bos else []) + tokenizer.encode(prompt)
    ids = ids or [tokenizer.eos_id]
    if len(ids) > longest:
        raise ValueError(
            f"the prompt has {len(ids)} tokens, more than max_seq_len ({longest}); shorten it"
        )
    return ids


def _padded(
    rows: list[list[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Rows padded on the right, and their documents (0, padding -1) where lengths differ."""
    longest = max(len(row) for row in rows)
    tokens = torch.tensor([row + [pad_id] * (longest - len(row)) for row in rows], device=device)
    if all(len(row) == longest for row in rows):
        return tokens, None
    documents = [[0] * len(row) + [-1] * (longest - len(row)) for row in rows]
    return tokens, torch.tensor(documents, device=device)


def _cut(text: str, stop: Sequence[str]) -> int | None:
    """Where the first stop string begins."""
    places = [place for word in stop if (place := text.find(word)) >= 0]
    return min(places, default=None)


def _begun(text: str, stop: Sequence[str]) -> int:
    """Characters at the end that may be the beginning of a stop string."""
    return max(
        (n for word in stop for n in range(1, len(word)) if text.endswith(word[:n])), default=0
    )
