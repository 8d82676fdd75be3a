"""samples.md: what the network writes as it learns."""

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from gpt4o_lit.generation import SamplingConfig, fill, generate


class Samples(Callback):
    """Appends to samples.md what the network makes of some prompts after each validation.

    An encoder fills in each `<mask>` of its prompts. Training is the same with and without samples.

    Args:
        prompts: Texts to go on with. Default: the beginning of the validation text.
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
        self.prompts = prompts
        self.config = SamplingConfig(max_new_tokens=max_new_tokens, temperature=temperature)
        self.every_n_validations, self.enabled = every_n_validations, enabled
        self._validations = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, in evaluation mode and without drawing from the run's random generator."""
        if not self.enabled or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._validations += 1
        if not trainer.is_global_zero or self._validations % self.every_n_validations:
            return
        transformer: Any = pl_module.transformer
        training = transformer.training
        transformer.eval()
        try:
            sections = self._sections(trainer, transformer)
        finally:
            transformer.train(training)
        loss = trainer.callback_metrics.get("val/loss", torch.tensor(float("nan")))
        title = f"## Step {trainer.global_step}, validation loss {float(loss):.4f}\n\n"
        with (Path(trainer.default_root_dir) / "samples.md").open("a", encoding="utf-8") as file:
            file.write(title + "\n\n".join(sections) + "\n\n")

    def _sections(self, trainer: Trainer, transformer: Any) -> list[str]:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        tokenizer = datamodule.tokenizer
        prompts = self.prompts or _beginnings(datamodule, masked=transformer.decoder is None)
        if transformer.decoder is None:
            texts = [fill(transformer, tokenizer, prompt) for prompt in prompts]
        else:
            texts = generate(transformer, tokenizer, prompts, self.config)
        joined = transformer.decoder is not None and transformer.encoder is None
        return [
            fenced(prompt + text if joined else f"{prompt}\n-->\n{text}")
            for prompt, text in zip(prompts, texts, strict=True)
        ]


def fenced(text: str) -> str:
    """The text as a block of code that no backticks in it can end."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"


def _beginnings(datamodule: Any, masked: bool, num_tokens: int = 16) -> list[str]:
    """The first tokens of the validation text, every fifth of them hidden for an encoder."""
    window = datamodule.corpus.split("valid").windows([0], max(num_tokens, 1))[0][0]
    ids = window[:num_tokens].tolist()
    if not masked:
        return [datamodule.tokenizer.decode(ids)]
    parts = [datamodule.tokenizer.decode(ids[i : i + 4]) for i in range(0, len(ids), 5)]
    return ["<mask>".join(parts)]
