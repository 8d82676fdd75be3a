"""A look inside the network as it learns."""

from pathlib import Path
from typing import Any, ClassVar

from lightning import Callback, LightningModule, Trainer

from gpt4o_lit.callbacks.pictures import show_pictures
from gpt4o_lit.callbacks.samples import evaluating, prompt_format_of
from gpt4o_lit.explanation import Explanation, explain, write_page
from gpt4o_lit.explanation.pictures import draw


class Explain(Callback):
    """Writes what `gpt4o-lit explain` shows of a text to explain/STEP/ after validations.

    W&B, TensorBoard and MLflow get the pictures too. Training is the same with and without it.

    Args:
        text: What is explained.
        answer: What the decoder of an encoder-decoder reads. Default: what it would write.
        every_n_validations: Explain after each n-th validation.
        num_steps: Of the attributions; 0: none.
        enabled: False writes nothing.
    """

    needs_whole_weights: ClassVar[bool] = True

    def __init__(
        self,
        text: str,
        answer: str | None = None,
        every_n_validations: int = 1,
        num_steps: int = 0,
        enabled: bool = True,
    ) -> None:
        if every_n_validations < 1:
            raise ValueError(
                f"every_n_validations ({every_n_validations}) must be at least 1; set it to 1"
            )
        self.text, self.answer, self.num_steps = text, answer, num_steps
        self.every_n_validations, self.enabled = every_n_validations, enabled
        self._validations = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse at once, not at the first validation, a text that the network cannot read."""
        if self.enabled and trainer.is_global_zero:
            self._explain(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Explain, in evaluation mode."""
        if not self.enabled or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._validations += 1
        if not trainer.is_global_zero or self._validations % self.every_n_validations:
            return
        told = self._explain(trainer, pl_module)
        place = Path(trainer.default_root_dir) / "explain" / f"step_{trainer.global_step}"
        pictures = draw(told, place)
        write_page(told, place / "explain.html")
        show_pictures(trainer, "explain", pictures)

    def _explain(self, trainer: Any, pl_module: Any) -> Explanation:
        with evaluating(pl_module.transformer):
            return explain(
                pl_module.transformer, trainer.datamodule.tokenizer, self.text,
                answer=self.answer, num_steps=self.num_steps,
                prompt_format=prompt_format_of(trainer, pl_module),
            )  # fmt: skip
