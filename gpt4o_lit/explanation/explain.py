"""All that is told of how a network reads one text."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gpt4o_lit.explanation.attribution import Attribution, attribute
from gpt4o_lit.explanation.labels import Labels
from gpt4o_lit.explanation.lens import Guess, logit_lens
from gpt4o_lit.explanation.record import Record, record, rollout
from gpt4o_lit.generation import PromptFormat, SamplingConfig, decode
from gpt4o_lit.generation.prefill import PLAIN, start_id
from gpt4o_lit.model import Transformer
from gpt4o_lit.tokenizer import Tokenizer

MASK = "<mask>"


@dataclass(frozen=True)
class Explanation:
    """One text, and what the network makes of it."""

    tokens: list[str]
    """Labels of what the decoder, or an encoder alone, reads."""
    source: list[str]
    """Labels of what the encoder of an encoder-decoder reads."""
    record: Record
    rollouts: dict[str, Tensor]
    """By stack: how much of each token's final state comes from each."""
    lens: list[list[list[Guess]]]
    """By layer and token: the likeliest pieces."""
    attribution: Attribution | None
    target: str
    """Label of the token that the attribution speaks for."""

    def axes(self, name: str) -> tuple[list[str], list[str]]:
        """Labels of the queries and keys of `encoder`, `decoder`, or `cross`."""
        reads_source = name == "encoder" and bool(self.source)
        rows = self.source if reads_source else self.tokens
        return rows, self.source if name == "cross" else rows


def explain(
    transformer: Transformer,
    tokenizer: Tokenizer,
    text: str,
    *,
    answer: str | None = None,
    prompt_format: PromptFormat = PLAIN,
    num_steps: int = 32,
) -> Explanation:
    """Read a text and tell what happens.

    An encoder-decoder reads it with its encoder; its decoder reads `answer`, or what it would write
    itself. An encoder is asked for the first <mask>, others for the token behind the last.

    Args:
        num_steps: Of the integral of the attributions; 0: none are made.

    Raises:
        ValueError: the text has no token or more than the context holds, an answer is given that no
            decoder reads, or Captum is not installed.
    """
    tokens, source = _read(transformer, tokenizer, text, answer, prompt_format)
    device = transformer.head.weight.device
    tokens_1T = torch.tensor([tokens], device=device)
    source_1S = None if source is None else torch.tensor([source], device=device)
    found = record(transformer, tokens_1T, source_1S, bidirectional=prompt_format.bidirectional)
    asked = -1
    if transformer.decoder is None and tokenizer.mask_id in tokens:
        asked = tokens.index(tokenizer.mask_id)
    spoken_for, names = None, Labels(tokenizer)
    if num_steps:
        spoken_for = attribute(
            transformer, tokens_1T, source_1S, position=asked,
            baseline_id=start_id(transformer, tokenizer),
            target_id=int(found.logits_TV[asked, : tokenizer.vocab_size].argmax()),
            num_steps=num_steps, bidirectional=prompt_format.bidirectional,
        )  # fmt: skip
    return Explanation(
        tokens=names.of(tokens),
        source=[] if source is None else names.of(source),
        record=found,
        rollouts={
            name: rollout(weights) for name, weights in found.attention.items() if name != "cross"
        },
        lens=logit_lens(transformer, tokenizer, found),
        attribution=spoken_for,
        target="" if spoken_for is None else names.of_one(spoken_for.target_id),
    )


def _read(
    transformer: Transformer,
    tokenizer: Tokenizer,
    text: str,
    answer: str | None,
    prompt_format: PromptFormat,
) -> tuple[list[int], list[int] | None]:
    """What the decoder, or an encoder alone, reads, and the source of an encoder-decoder."""
    both = transformer.encoder is not None and transformer.decoder is not None
    if answer is not None and not both:
        raise ValueError("an answer is for an encoder-decoder; leave it out, or put it in the text")
    parts = text.split(MASK) if transformer.decoder is None else [text]
    ids: list[int] = []
    for number, part in enumerate(parts):
        ids += [*([tokenizer.mask_id] if number else []), *tokenizer.encode(part)]
    ids = prompt_format.surround(ids, tokenizer)
    if not ids:
        raise ValueError("the text has no token; give some text")
    longest = transformer.config.max_seq_len
    if len(ids) > longest:
        raise ValueError(
            f"the text has {len(ids)} tokens, more than max_seq_len ({longest}); shorten it"
        )
    if not both:
        return ids, None
    start = start_id(transformer, tokenizer)
    if answer is not None:
        return [start, *tokenizer.encode(answer)][:longest], ids
    greedy = SamplingConfig(temperature=0.0, max_new_tokens=min(32, longest - 1))
    written = []
    for (token,) in decode(transformer, tokenizer, [text], greedy, prompt_format=prompt_format):
        if token is None or token == tokenizer.eos_id:
            break
        written.append(token)
    return [start, *written], ids
