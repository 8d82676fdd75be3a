"""The directory that a run which made its network smaller leaves."""

from pathlib import Path
from typing import Any

from lightning import Callback, Trainer

from gpt4o_lit.callbacks.pruning import Pruning
from gpt4o_lit.callbacks.quantization import PostTrainingQuantization, QuantizationAwareTraining
from gpt4o_lit.callbacks.structured_pruning import StructuredPruning
from gpt4o_lit.interop.compressed import save_compressed
from gpt4o_lit.interop.run import open_run, save_opened

COMPRESSING = (Pruning, StructuredPruning, PostTrainingQuantization, QuantizationAwareTraining)
FOLDER = "compressed"


class Artefact(Callback):
    """Writes `RUN/compressed` of the best checkpoint when a run ends that prunes or quantizes.

    With `validate` and PostTrainingQuantization the directory of that command becomes it.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Quantize where that was left for the end, and write."""
        chosen = _compressing(trainer)
        if not chosen or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        opened = open_run(trainer.default_root_dir)
        trained, pl_module.transformer = pl_module.transformer, opened.transformer
        try:
            for each in chosen:
                if isinstance(each, PostTrainingQuantization):
                    each.quantize(trainer, pl_module)
        finally:
            pl_module.transformer = trained
        if trainer.is_global_zero:
            save_opened(opened, opened.path / FOLDER)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write what was measured."""
        quantizes = any(isinstance(c, PostTrainingQuantization) for c in _compressing(trainer))
        if trainer.state.fn == "validate" and quantizes and trainer.is_global_zero:
            saved: dict[str, Any] = {}
            pl_module.on_save_checkpoint(saved)
            save_compressed(
                pl_module.transformer,
                pl_module.datamodule.tokenizer,
                Path(trainer.default_root_dir),
                saved,
            )


def _compressing(trainer: Any) -> list[Callback]:
    return [each for each in trainer.callbacks if isinstance(each, COMPRESSING) and each.enabled]
