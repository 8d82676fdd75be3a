"""How well a network foretells texts, by a window that slides over each."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpt4o_lit.evaluation.likelihood import BATCH_TOKENS, Pair, likelihoods
from gpt4o_lit.generation import PromptFormat
from gpt4o_lit.generation.prefill import PLAIN
from gpt4o_lit.model import Transformer
from gpt4o_lit.tokenizer import Tokenizer


@dataclass(frozen=True)
class TextQuality:
    """Sums over all tokens that were judged."""

    nats: float
    """Of their negative log-likelihoods."""
    tokens: int
    num_bytes: int
    words: int
    """Between blanks, and one for the end of each line, as WikiText counts them."""

    @property
    def perplexity(self) -> float:
        """Per token; of tokenizers that differ it cannot be compared."""
        return _exp(self.nats / self.tokens)

    @property
    def word_perplexity(self) -> float:
        """Per word: the text's probability is the same however it is cut into pieces."""
        return _exp(self.nats / self.words)

    @property
    def bits_per_byte(self) -> float:
        """Per byte of text; it can be compared across tokenizers."""
        return self.nats / math.log(2) / self.num_bytes


def text_quality(
    transformer: Transformer,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    stride: int | None = None,
    prompt_format: PromptFormat = PLAIN,
    batch_tokens: int = BATCH_TOKENS,
    on_batch: Callable[[int], object] = lambda count: None,
) -> TextQuality:
    """The quality on the texts; each token is judged once, and no text sees another.

    Behind the first window each judges `stride` tokens (default: half a context), so that at least
    the rest of the context stands before each. A smaller stride shows more and takes longer. Where
    documents do not open with bos, a text's first token has nothing before it and is not judged.

    Args:
        on_batch: Told how many windows a batch has judged.

    Raises:
        ValueError: the network is no decoder, the stride does not fit, or no text has two tokens.
    """
    longest = transformer.config.max_seq_len
    stride = max(1, longest // 2) if stride is None else stride
    if transformer.encoder is not None:
        raise ValueError(
            "perplexity with a sliding window is for decoders; measure this network by "
            "`gpt4o-lit test`"
        )
    if not 1 <= stride <= longest:
        raise ValueError(
            f"stride ({stride}) must be at least 1 and at most max_seq_len ({longest}); set it to "
            f"{max(1, longest // 2)}"
        )
    pairs: list[Pair] = []
    num_bytes = words = 0
    opening = [tokenizer.bos_id] if prompt_format.add_bos else []
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        pairs += windows([*opening, *ids], longest, stride)
        given = [] if opening else ids[:1]
        num_bytes += len(text.encode()) - int(tokenizer.token_bytes[given].sum())
        words += len(text.split()) + text.count("\n")
    if not pairs:
        raise ValueError("the text has fewer than two tokens; give a longer one")
    found = likelihoods(
        transformer, pairs, bidirectional=prompt_format.bidirectional, batch_tokens=batch_tokens,
        on_batch=on_batch,
    )  # fmt: skip
    tokens = sum(len(asked) for _, asked in pairs)
    return TextQuality(-sum(each.nats for each in found), tokens, num_bytes, words)


def windows(ids: Sequence[int], longest: int, stride: int) -> list[Pair]:
    """What is given and what is asked in each window; every id but the first is asked once."""
    pairs: list[Pair] = []
    asked = 1
    while asked < len(ids):
        end = min(len(ids), asked + (longest if asked == 1 else stride))
        pairs.append((ids[max(0, end - longest - 1) : asked], ids[asked:end]))
        asked = end
    return pairs


def _exp(nats: float) -> float:
    return math.exp(min(nats, 700.0))
