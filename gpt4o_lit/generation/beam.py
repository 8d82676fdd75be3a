"""Beam search: the likeliest texts behind a prompt, and how likely they are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gpt4o_lit.generation.constraint import Constraint, Pattern
from gpt4o_lit.generation.prefill import (
    PLAIN,
    Group,
    Prompt,
    PromptFormat,
    group_prompts,
    num_pieces,
    prefill,
)
from gpt4o_lit.generation.step import Step
from gpt4o_lit.model import Transformer
from gpt4o_lit.tokenizer import Tokenizer

# R prompts still searched, W beams, C candidates, D dim, V vocab, T tokens written

Ends = Callable[[int, list[int]], bool]


@dataclass(frozen=True, kw_only=True)
class BeamConfig:
    """How many texts are searched at once, and which of them is the best."""

    num_beams: int = 4
    """Texts that are written side by side for each prompt."""
    num_return: int = 1
    """Texts given for each prompt, the best first."""
    max_new_tokens: int = 128
    """Most tokens to write."""
    length_penalty: float = 1.0
    """A text's score: its log-likelihood over its length to this power. More favours long texts."""
    early_stopping: bool | Literal["never"] = False
    """True: stop at num_beams whole texts. False: stop where the best unfinished one, as long as it
    is, does not beat them. never: stop where it could not at any length."""
    stop: tuple[str, ...] = ()
    """Stop before any of these strings."""
    pattern: Pattern | None = None
    """What the whole text must match."""
    int8_cache: bool = False
    """Keep keys and values as whole numbers of 8 bits: a quarter of the memory."""

    def __post_init__(self) -> None:
        for name in ("num_beams", "num_return", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1")
        if self.num_return > self.num_beams:
            raise ValueError(
                f"num_return ({self.num_return}) must be at most num_beams ({self.num_beams}); "
                "raise num_beams"
            )
        if "" in self.stop:
            raise ValueError("stop holds an empty string, which is everywhere; leave it out")


@dataclass(frozen=True)
class Hypothesis:
    """A text that the search has found."""

    ids: list[int]
    """Its tokens, without the one that ends it."""
    score: float
    """Its log-likelihood, the end's included, over its length to the length_penalty."""


@torch.inference_mode()
def beam_search(
    transformer: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    config: BeamConfig,
    *,
    prompt_format: PromptFormat = PLAIN,
    ends: Ends | None = None,
    compiled: bool = False,
) -> list[list[Hypothesis]]:
    """The best num_return texts behind each prompt, best first.

    Args:
        ends: Whether a text is whole, given the number of its prompt and the tokens behind it; eos
            and max_new_tokens end it anyhow.
        compiled: Compile the steps behind the prompt (see `Step`).

    Raises:
        ValueError: a prompt is longer than the context, or the network is an encoder alone.
    """
    limit = config.max_new_tokens
    constraint = None if config.pattern is None else Constraint(tokenizer, config.pattern)
    found: list[list[Hypothesis]] = [[] for _ in prompts]
    step = Step(transformer, num_pieces(transformer, tokenizer), compiled=compiled)
    for group in group_prompts(transformer, tokenizer, prompts, prompt_format, limit):
        search = _Search(step, tokenizer, group, config, constraint, ends)
        for number, texts in zip(group.numbers, search.run(prompt_format), strict=True):
            found[number] = texts[: config.num_return]
    return found


class _Search:
    """The search behind the prompts of a group."""

    def __init__(
        self,
        step: Step,
        tokenizer: Tokenizer,
        group: Group,
        config: BeamConfig,
        constraint: Constraint | None,
        ends: Ends | None,
    ) -> None:
        self.step, self.tokenizer = step, tokenizer
        self.group, self.config, self.ends = group, config, ends
        self.found: list[list[Hypothesis]] = [[] for _ in group.rows]
        count = len(group.rows) * config.num_beams
        self.matchers = [] if constraint is None else [constraint.start() for _ in range(count)]
        """One a beam, where texts are held to a pattern."""

    def run(self, prompt_format: PromptFormat) -> list[list[Hypothesis]]:
        """What is found behind each prompt, best first."""
        beams = self.config.num_beams
        cache, hidden_RD = prefill(
            self.step,
            self.tokenizer,
            self.group,
            bidirectional=prompt_format.bidirectional,
            int8_cache=self.config.int8_cache,
        )
        device = hidden_RD.device
        open_rows = list(range(len(self.group.rows)))
        scores_RW = torch.full((len(open_rows), beams), float("-inf"), device=device)
        scores_RW[:, 0] = 0.0  # all beams are one at first
        written_RWT = torch.empty(len(open_rows), beams, 0, dtype=torch.long, device=device)
        cache.select(torch.arange(len(open_rows), device=device).repeat_interleave(beams))
        logits_BV = self.step.scores(hidden_RD).repeat_interleave(beams, dim=0)
        for step in range(1, self.group.steps + 1):
            likely_RWV = self._allowed(logits_BV.log_softmax(-1)).unflatten(0, (-1, beams))
            totals_RC = (scores_RW[..., None] + likely_RWV).flatten(1)
            # Twice as many as beams: enough go on even where each beam's likeliest is its end.
            best_RC, places_RC = totals_RC.topk(min(2 * beams, totals_RC.shape[1]))
            parents_RC = places_RC // likely_RWV.shape[-1]
            tokens_RC = places_RC % likely_RWV.shape[-1]
            ended_RC = self._ended(step, open_rows, written_RWT, parents_RC, tokens_RC)
            for row, number in enumerate(open_rows):
                self._collect(
                    number, step, best_RC[row], ended_RC[row],
                    written_RWT[row], parents_RC[row], tokens_RC[row],
                )  # fmt: skip
            if step == self.group.steps:
                break
            scores_RW, kept_RW = best_RC.masked_fill(ended_RC, float("-inf")).topk(beams)
            leaders = scores_RW[:, 0].tolist()
            still = [
                row
                for row, number in enumerate(open_rows)
                if not self._is_done(number, step, leaders[row])
            ]
            if not still:
                break
            open_rows = [open_rows[row] for row in still]
            still_R = torch.tensor(still, device=device)
            scores_RW, kept_RW = scores_RW[still_R], kept_RW[still_R]
            parents_RW = parents_RC[still_R].gather(1, kept_RW)
            tokens_RW = tokens_RC[still_R].gather(1, kept_RW)
            rows_RW = still_R[:, None].expand_as(parents_RW)
            written_RWT = torch.cat([written_RWT[rows_RW, parents_RW], tokens_RW[..., None]], -1)
            kept_B = (still_R[:, None] * beams + parents_RW).flatten()
            cache.select(kept_B)
            self._follow(kept_B.tolist(), tokens_RW.flatten().tolist())
            logits_BV = self.step(tokens_RW.reshape(-1, 1), cache)[:, -1]
        return self.found

    def _allowed(self, likely_BV: Tensor) -> Tensor:
        """Minus infinity for what the pattern forbids; the rest as likely as without one."""
        if not self.matchers:
            return likely_BV
        allowed_BV = torch.stack([matcher.allowed() for matcher in self.matchers])
        return likely_BV.masked_fill(
            ~allowed_BV[:, : self.step.num_pieces].to(likely_BV.device), float("-inf")
        )

    def _follow(self, kept: list[int], tokens: list[int]) -> None:
        """Let the matchers go where the beams went."""
        if self.matchers:
            self.matchers = [self.matchers[beam].copy() for beam in kept]
            for matcher, token in zip(self.matchers, tokens, strict=True):
                matcher.read([token])

    def _ended(
        self,
        step: int,
        open_rows: list[int],
        written_RWT: Tensor,
        parents_RC: Tensor,
        tokens_RC: Tensor,
    ) -> Tensor:
        """Which candidates are whole texts: (R, C)."""
        if step == self.group.steps:
            return torch.ones_like(tokens_RC, dtype=torch.bool)
        ended_RC = tokens_RC == self.tokenizer.eos_id
        if self.ends is None:
            return ended_RC
        numbers = [self.group.numbers[row] for row in open_rows]
        candidates = zip(
            numbers, written_RWT.tolist(), parents_RC.tolist(), tokens_RC.tolist(), strict=True
        )
        told = [
            [
                self.ends(number, [*texts[parent], token])
                for parent, token in zip(parents, tokens, strict=True)
            ]
            for number, texts, parents, tokens in candidates
        ]
        return ended_RC | torch.tensor(told, device=ended_RC.device)

    def _collect(
        self,
        number: int,
        step: int,
        best_C: Tensor,
        ended_C: Tensor,
        written_WT: Tensor,
        parents_C: Tensor,
        tokens_C: Tensor,
    ) -> None:
        """Keep the num_beams best of the texts so far and those that end among the best here."""
        beams, found = self.config.num_beams, self.found[number]
        ended = (ended_C[:beams] & best_C[:beams].isfinite()).nonzero()[:, 0].tolist()
        for place in ended:
            token = int(tokens_C[place])
            ids = written_WT[parents_C[place]].tolist()
            ids += [] if token == self.tokenizer.eos_id else [token]
            score = float(best_C[place]) / step**self.config.length_penalty
            found.append(Hypothesis(ids, score))
        found.sort(key=lambda text: -text.score)
        del found[beams:]

    def _is_done(self, number: int, step: int, leader: float) -> bool:
        """Whether nothing better is looked for, the best unfinished text having this score."""
        config, found = self.config, self.found[number]
        if leader == float("-inf"):
            return True  # every text has ended
        if len(found) < config.num_beams:
            return False
        if config.early_stopping is True:
            return True
        longest = config.early_stopping == "never" and config.length_penalty > 0
        length = self.group.steps if longest else step
        return leader / length**config.length_penalty <= found[-1].score
