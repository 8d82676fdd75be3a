"""samples.md: what the network writes as it learns."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from gpt4o_lit.generation import PromptFormat, SamplingConfig, fill, generate
from gpt4o_lit.model import Transformer
from gpt4o_lit.strategies import whole_network


class Samples(Callback):
    """Appends to samples.md what the network makes of some prompts after each validation.

    An encoder fills in each `<mask>` of its prompts. Training is the same with and without samples.

    Args:
        prompts: Texts to go on with. Default: the first of the validation data, cut short.
        max_new_tokens: Tokens to write for each.
        temperature: 0 is greedy.
        every_n_validations: Write after each n-th validation.
        enabled: False writes nothing.
    """

    def __init__(
        self,
        prompts: list[str] | None = None,
        max_new_tokens: int = 64,
        temperature: float = 0.8,
        every_n_validations: int = 1,
        enabled: bool = True,
    ) -> None:
        if every_n_validations < 1:
            raise ValueError(f"every_n_validations ({every_n_validations}) must be at least 1")
        self.prompts = prompts
        self.config = SamplingConfig(max_new_tokens=max_new_tokens, temperature=temperature)
        self.every_n_validations, self.enabled = every_n_validations, enabled
        self._validations = 0

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Refuse at once, not at the first validation, a prompt that the network cannot read."""
        if self.prompts is not None and self._writes(trainer):
            network = whole_network(trainer.strategy, pl_module.transformer)
            self._written(trainer, pl_module, network, replace(self.config, max_new_tokens=1))

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write, in evaluation mode and without drawing from the run's random generator."""
        if not self._writes(trainer) or trainer.sanity_checking:
            return
        self._validations += 1
        if self._validations % self.every_n_validations:
            return
        network = whole_network(trainer.strategy, pl_module.transformer)
        if not trainer.is_global_zero:
            return
        written = self._written(trainer, pl_module, network, self.config)
        loss = trainer.callback_metrics.get("val/loss", torch.tensor(float("nan")))
        title = f"## Step {trainer.global_step}, validation loss {float(loss):.4f}\n\n"
        try:
            path = Path(trainer.default_root_dir) / "samples.md"
            with path.open("a", encoding="utf-8") as file:
                file.write(title + "\n\n".join(map(_section, written)) + "\n\n")
        except OSError as error:
            rank_zero_warn(f"samples of step {trainer.global_step} were not written ({error})")
        for logger in trainer.loggers:
            log_text: Any = getattr(logger, "log_text", None)  # W&B has it
            if log_text is not None:
                rows = [list(row[:2]) for row in written]
                log_text("samples", columns=["prompt", "text"], data=rows, step=trainer.global_step)

    def _writes(self, trainer: Any) -> bool:
        return self.enabled and trainer.state.fn == "fit" and not trainer.fast_dev_run

    def _written(
        self, trainer: Trainer, pl_module: Any, transformer: Transformer, config: SamplingConfig
    ) -> list[tuple[str, str, bool]]:
        """Prompts, what came of each, and whether that goes on with the prompt."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        tokenizer = datamodule.tokenizer
        prompt_format = prompt_format_of(trainer, pl_module)
        prompts = self.prompts
        if prompts is None:
            prompts = datamodule.prompts(
                masked=transformer.decoder is None, longest=transformer.config.max_seq_len // 2
            )
        with evaluating(transformer):
            if transformer.decoder is None:
                texts = [
                    fill(transformer, tokenizer, text, prompt_format=prompt_format)
                    for text in prompts
                ]
            else:
                texts = generate(
                    transformer,
                    tokenizer,
                    prompts,
                    config,
                    prompt_format=prompt_format,
                )
        joined = transformer.decoder is not None and transformer.encoder is None
        return [(prompt, text, joined) for prompt, text in zip(prompts, texts, strict=True)]


def _section(written: tuple[str, str, bool]) -> str:
    prompt, text, joined = written
    return fenced(prompt + text if joined else f"{prompt}\n-->\n{text}")


def prompt_format_of(trainer: Trainer, task: Any) -> PromptFormat:
    """How a run's training puts documents; other data modules and tasks have no such settings."""
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    return PromptFormat(
        add_bos=getattr(getattr(datamodule, "corpus_config", None), "add_bos", False),
        bidirectional=getattr(getattr(task, "objective", None), "bidirectional_prompt", False),
        add_eos=getattr(task, "source_eos", False),
    )


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each part has its own mode again, for some may be frozen."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def fenced(text: str) -> str:
    """The text as a block of code that no backticks in it can end."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"
