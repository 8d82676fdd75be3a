"""Text behind a prompt, whole or piece by piece."""

from collections.abc import Iterator, Sequence
from typing import Any

from gpt4o_lit.generation.beam import BeamConfig, beam_search
from gpt4o_lit.generation.decode import Engine, decode
from gpt4o_lit.generation.prefill import PLAIN, Prompt, PromptFormat, ids_of
from gpt4o_lit.generation.sampling import SamplingConfig
from gpt4o_lit.generation.speculative import Draft, speculate
from gpt4o_lit.model import Transformer
from gpt4o_lit.tokenizer import Tokenizer

UNFINISHED = "\ufffd"


def generate(
    transformer: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    config: SamplingConfig,
    *,
    prompt_format: PromptFormat = PLAIN,
    first: int = 0,
    draft: Draft | None = None,
    compiled: bool = False,
    engine: Engine | None = None,
) -> list[str]:
    """What comes behind each prompt, or what an encoder-decoder answers to it.

    The options and the errors are those of `decode`; with a draft, those of `speculate`.
    """
    completions = [_Completion(transformer, tokenizer, prompt) for prompt in prompts]
    done = [False for _ in prompts]
    ends = {tokenizer.eos_id, *config.stop_ids}
    how: dict[str, Any] = {"prompt_format": prompt_format, "first": first, "compiled": compiled}
    steps = _steps(transformer, tokenizer, prompts, config, draft, engine, how)
    for step_B in steps:
        for row, token in enumerate(step_B):
            if done[row]:
                continue
            if token is None or token in ends:
                done[row] = True
                continue
            completions[row].ids.append(token)
            if config.stop:
                done[row] = _cut(completions[row].text, config.stop) is not None
        if all(done):
            break
    texts = [completion.text for completion in completions]
    return [text[: _cut(text, config.stop)] for text in texts]


def search(
    transformer: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    config: BeamConfig,
    *,
    prompt_format: PromptFormat = PLAIN,
    compiled: bool = False,
) -> list[list[tuple[str, float]]]:
    """The best texts behind each prompt and their scores, best first; as `beam_search`."""
    completions = [_Completion(transformer, tokenizer, prompt) for prompt in prompts]

    def ends(number: int, ids: list[int]) -> bool:
        return _cut(completions[number].text_of(ids), config.stop) is not None

    found = beam_search(
        transformer,
        tokenizer,
        prompts,
        config,
        prompt_format=prompt_format,
        ends=ends if config.stop else None,
        compiled=compiled,
    )
    texts = []
    for completion, hypotheses in zip(completions, found, strict=True):
        written = [(completion.text_of(text.ids), text.score) for text in hypotheses]
        texts.append([(text[: _cut(text, config.stop)], score) for text, score in written])
    return texts


def likeliest(
    transformer: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    config: BeamConfig,
    *,
    prompt_format: PromptFormat = PLAIN,
) -> list[str]:
    """The best text behind each prompt: of a search, or with one beam the greedy one."""
    if config.num_beams == 1:
        greedy = SamplingConfig(
            max_new_tokens=config.max_new_tokens, temperature=0.0, stop=config.stop
        )
        return generate(transformer, tokenizer, prompts, greedy, prompt_format=prompt_format)
    found = search(transformer, tokenizer, prompts, config, prompt_format=prompt_format)
    return [texts[0][0] for texts in found]


def stream(
    transformer: Transformer,
    tokenizer: Tokenizer,
    prompt: Prompt,
    config: SamplingConfig,
    *,
    prompt_format: PromptFormat = PLAIN,
    draft: Draft | None = None,
    compiled: bool = False,
    engine: Engine | None = None,
) -> Iterator[str]:
    """The same for one prompt, piece by piece; no character and no stop string is torn apart."""
    completion = _Completion(transformer, tokenizer, prompt)
    ends = {tokenizer.eos_id, *config.stop_ids}
    shown = 0
    text = ""
    how: dict[str, Any] = {"prompt_format": prompt_format, "compiled": compiled}
    for (token,) in _steps(transformer, tokenizer, [prompt], config, draft, engine, how):
        if token is None or token in ends:
            break
        completion.ids.append(token)
        text = completion.text
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


def _steps(
    transformer: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    config: SamplingConfig,
    draft: Draft | None,
    engine: Engine | None,
    how: dict[str, Any],
) -> Iterator[list[int | None]]:
    if draft is None:
        return decode(transformer, tokenizer, prompts, config, engine=engine, **how)
    if engine is not None:
        raise ValueError("an engine writes without a draft; leave one of them out")
    return speculate(transformer, draft, tokenizer, prompts, config, **how)


class _Completion:
    """Tokens behind a prompt, read together with it: a text's first piece may lose its space.

    What an encoder-decoder answers is a text of its own.
    """

    def __init__(self, transformer: Transformer, tokenizer: Tokenizer, prompt: Prompt) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        """What has been written."""
        self._prompt = ids_of(tokenizer, prompt) if transformer.encoder is None else []
        self._start = len(tokenizer.decode(self._prompt))

    @property
    def text(self) -> str:
        """What has been written behind the prompt."""
        return self.text_of(self.ids)

    def text_of(self, ids: Sequence[int]) -> str:
        """What these tokens say behind the prompt."""
        return self.tokenizer.decode([*self._prompt, *ids])[self._start :]


def _cut(text: str, stop: Sequence[str]) -> int | None:
    """Where the first stop string begins."""
    places = [place for word in stop if (place := text.find(word)) >= 0]
    return min(places, default=None)


def _begun(text: str, stop: Sequence[str]) -> int:
    """Characters at the end that may be the beginning of a stop string."""
    return max(
        (n for word in stop for n in range(1, len(word)) if text.endswith(word[:n])), default=0
    )
