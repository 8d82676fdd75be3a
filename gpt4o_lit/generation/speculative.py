"""Speculative decoding: a small network proposes tokens, the large one checks them all at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from operator import and_, eq

import torch
from torch import Tensor

from gpt4o_lit.generation.decode import prompt_generator
from gpt4o_lit.generation.prefill import (
    PLAIN,
    Group,
    Prompt,
    PromptFormat,
    group_prompts,
    num_pieces,
    prefill,
)
from gpt4o_lit.generation.sampling import SamplingConfig, distribution
from gpt4o_lit.generation.step import Step
from gpt4o_lit.model import KVCache, Transformer
from gpt4o_lit.tokenizer import Tokenizer

# T tokens, D dim, V vocab


@dataclass
class Draft:
    """A smaller network that proposes tokens, and what became of them."""

    transformer: Transformer
    """Of the same tokenizer, with as long a context."""
    num_proposed: int = 4
    """Tokens that it proposes for each pass of the large network."""
    proposed: int = 0
    """Tokens proposed so far."""
    accepted: int = 0
    """Those of them that were kept."""
    checks: int = 0
    """Passes of the large network; each gives what it accepts and one token of its own."""

    @property
    def rate(self) -> float:
        """Share of the proposed tokens that were kept."""
        return self.accepted / max(1, self.proposed)

    @property
    def tokens_per_check(self) -> float:
        """Tokens written for each pass of the large network."""
        return 1 + self.accepted / max(1, self.checks)


@torch.inference_mode()
def speculate(
    transformer: Transformer,
    draft: Draft,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    config: SamplingConfig,
    *,
    prompt_format: PromptFormat = PLAIN,
    first: int = 0,
    compiled: bool = False,
) -> Iterator[list[int | None]]:
    """As `decode`: its distribution and, at temperature 0, its very tokens (arXiv:2211.17192).

    Args:
        compiled: Compile the steps of both networks (see `Step`).

    Raises:
        ValueError: the draft's context is shorter, the config has a repetition_penalty or a
            pattern, or as for `decode`.
    """
    if config.repetition_penalty != 1.0:
        raise ValueError(
            f"repetition_penalty ({config.repetition_penalty}) cannot be had with a draft; "
            "leave one of them out"
        )
    if config.pattern is not None:
        raise ValueError("a pattern cannot be had with a draft; leave one of them out")
    if draft.num_proposed < 1:
        raise ValueError(f"num_proposed ({draft.num_proposed}) must be at least 1; set it to 4")
    longest, theirs = transformer.config.max_seq_len, draft.transformer.config.max_seq_len
    if theirs < longest:
        raise ValueError(
            f"the draft's max_seq_len ({theirs}) is less than the network's ({longest}); "
            "take a draft with as long a context"
        )
    pieces, most = num_pieces(transformer, tokenizer), draft.num_proposed
    large = Step(transformer, pieces, compiled=compiled, lengths=(1, most + 1))
    small = Step(draft.transformer, pieces, compiled=compiled, lengths=(1,))
    rows = {}
    for group in group_prompts(
        transformer, tokenizer, prompts, prompt_format, config.max_new_tokens
    ):
        for number, ids in zip(group.numbers, group.rows, strict=True):
            rows[number] = _Row(
                large, small, draft, tokenizer, Group([number], [ids], group.steps), config,
                prompt_format, first,
            )  # fmt: skip
    yield from map(list, zip_longest(*(rows[number].tokens() for number in range(len(prompts)))))


@dataclass
class _Row:
    """What is written behind one prompt; prompts are written side by side, each alone."""

    large: Step
    small: Step
    draft: Draft
    tokenizer: Tokenizer
    group: Group
    config: SamplingConfig
    prompt_format: PromptFormat
    first: int

    @property
    def greedy(self) -> bool:
        """Whether tokens are not drawn, and their distributions of no interest."""
        return self.config.temperature == 0

    def tokens(self) -> Iterator[int]:
        """The tokens, as they are known."""
        (cache, hidden_1D), (draft_cache, _) = (
            prefill(
                step,
                self.tokenizer,
                self.group,
                bidirectional=self.prompt_format.bidirectional,
                int8_cache=self.config.int8_cache,
            )
            for step in (self.large, self.small)
        )
        self.generator = prompt_generator(
            self.config.seed, self.first + self.group.numbers[0], hidden_1D.device
        )
        scores_TV = self.large.scores(hidden_1D)
        token = self._check([], [], scores_TV)[1]
        yield token
        unread, left = [token], self.group.steps - 1
        while left:
            count = min(self.draft.num_proposed, left - 1)
            proposed, guesses = self._propose(draft_cache, unread, count)
            scores_TV = self._judge(cache, [token, *proposed])
            kept, token = self._check(proposed, guesses, scores_TV)
            self.draft.checks += 1
            self.draft.proposed += count
            self.draft.accepted += kept
            yield from (*proposed[:kept], token)
            left -= kept + 1
            cache.rewind(cache.used - (count - kept))  # what was not kept is forgotten
            draft_cache.rewind(min(draft_cache.used, cache.used))
            # The draft has read all but the last of the tokens that it proposed.
            unread = [*proposed[-1:], token] if draft_cache.used < cache.used else [token]

    def _propose(
        self, cache: KVCache, unread: list[int], count: int
    ) -> tuple[list[int], list[Tensor]]:
        """Tokens of the draft and, if they are drawn, the distributions (V,) that they are from."""
        proposed: list[int] = []
        guesses: list[Tensor] = []
        for _ in range(count):
            for id in unread:
                scores_1V = self._read(self.small, cache, [id])
            if self.greedy:
                unread = [int(scores_1V.argmax())]
            else:
                guesses.append(distribution(scores_1V, self.config)[0])
                unread = [self._draw(guesses[-1])]
            proposed += unread
        return proposed, guesses

    def _judge(self, cache: KVCache, ids: list[int]) -> Tensor:
        """The large network's scores behind these tokens: (T, V).

        Fewer than its compiled step reads have others behind them, which are forgotten.
        """
        padding = self.draft.num_proposed + 1 - len(ids)
        room = cache.max_seq_len - cache.used - len(ids)
        if not self.large.compiled or len(ids) == 1 or padding > room:
            padding = 0
        scores_TV = self._read(self.large, cache, ids + ids[:1] * padding)
        cache.rewind(cache.used - padding)
        return scores_TV[: len(ids)]

    def _check(
        self, proposed: list[int], guesses: list[Tensor], scores_TV: Tensor
    ) -> tuple[int, int]:
        """How many of the proposed tokens are kept, and the token behind them."""
        if self.greedy:
            wanted = scores_TV.argmax(-1).tolist()
            kept = sum(accumulate(map(eq, proposed, wanted), and_))
            return kept, wanted[kept]
        wanted_TV = distribution(scores_TV, self.config)
        for kept, (token, guess_V) in enumerate(zip(proposed, guesses, strict=True)):
            wanted_V = wanted_TV[kept]
            chance = torch.rand((), generator=self.generator, device=wanted_V.device)
            if chance * guess_V[token] >= wanted_V[token]:
                # What the draft proposes too seldom: with it the whole is as wanted.
                seldom_V = (wanted_V - guess_V).clamp_min(0)
                return kept, self._draw(seldom_V if seldom_V.any() else wanted_V)
        return len(proposed), self._draw(wanted_TV[-1])

    def _read(self, step: Step, cache: KVCache, ids: list[int]) -> Tensor:
        """The scores behind these tokens: (T, V)."""
        return step(torch.tensor([ids], device=step.transformer.head.weight.device), cache)[0]

    def _draw(self, weights_V: Tensor) -> int:
        return int(torch.multinomial(weights_V, 1, generator=self.generator))
