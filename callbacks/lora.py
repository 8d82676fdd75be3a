"""Fine-tuning by adapters of low rank, the network itself frozen."""

from pathlib import Path
from typing import Any, ClassVar

from lightning import Callback, Trainer

from gpt4o_lit.callbacks.combining import Refused, require_combinable
from gpt4o_lit.callbacks.pruning import Pruning
from gpt4o_lit.callbacks.quantization import QuantizationAwareTraining
from gpt4o_lit.callbacks.structured_pruning import StructuredPruning
from gpt4o_lit.compression import Targets, add_low_rank_, count_trained, quantize_base_
from gpt4o_lit.interop.adapter import save_adapter
from gpt4o_lit.interop.checkpoints import load_checkpoint
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.low_rank import LowRankConfig, settings_of
from gpt4o_lit.model.weight_format import WeightFormat
from gpt4o_lit.run_directory import RunDirectory

FOLDER = "adapter"


class LoRA(Callback):
    """Trains small matrices beside frozen weights (LoRA, arXiv:2106.09685).

    Each chosen layer gains B A x, scaled. Whoever opens the run has the products added to its
    weights, of floats. At the end `RUN/adapter` holds the best checkpoint's for the library peft,
    where transformers has such a network. Logs `lora/parameters`, how many are trained.

    Args:
        rank: Rows of A, columns of B.
        alpha: The product counts alpha / rank times.
        dropout: Share of what an adapter reads that is dropped in training.
        rank_stabilized: The product counts alpha / sqrt(rank) times (rsLoRA, arXiv:2312.03732).
        targets: The matrices. Default: those of attention and feed-forward.
        train_also: Patterns of layers that are trained whole, such as *norm or head.
        quantize: How attention and feed-forward are stored while the adapters are trained (QLoRA,
            arXiv:2305.14314). Default: as they are.
        enabled: False does nothing.
    """

    needs_whole_layers: ClassVar[bool] = True
    refuses: ClassVar[Refused] = dict.fromkeys(
        (Pruning, StructuredPruning, QuantizationAwareTraining),
        "changes weights that LoRA keeps as they are; take one of them out, and go on from this "
        "run by pretrained in another",
    )

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        rank_stabilized: bool = False,
        targets: Targets | None = None,
        train_also: tuple[str, ...] = (),
        quantize: WeightFormat | None = None,
        enabled: bool = True,
    ) -> None:
        self.config = LowRankConfig(
            rank=rank, alpha=alpha, dropout=dropout, rank_stabilized=rank_stabilized
        )
        self.targets, self.train_also = targets or Targets(), tuple(train_also)
        self.quantize, self.enabled = quantize, enabled
        self._trained = 0

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Have the network prepared as soon as it is built, for training alone."""
        if self.enabled and stage == "fit":
            require_combinable(self, trainer)
            pl_module.amendments.append(self.prepare)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log where the step is logged."""
        if self.enabled and trainer.global_step % trainer.log_every_n_steps == 0:
            pl_module.log("lora/parameters", float(self._trained))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: Any) -> None:
        """Say what the adapters are, for whoever opens the run."""
        if self.enabled:
            checkpoint["low_rank"] = settings_of(pl_module.transformer)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Write what peft opens, or say why not."""
        saves = trainer.checkpoint_callback is not None and not trainer.fast_dev_run
        if not self.enabled or not saves or not trainer.is_global_zero:
            return
        run = RunDirectory(Path(trainer.default_root_dir))
        try:
            family = save_adapter(load_checkpoint(run.best_checkpoint), run.path / FOLDER)
        except ValueError as error:
            print(f"\nno adapter for peft: {error}")
        else:
            print(f"\nadapter: {run.path / FOLDER} (peft, {family.architecture})")

    def prepare(self, network: Transformer) -> None:
        """Freeze it beside new adapters."""
        if self.quantize is not None:
            quantize_base_(network, self.quantize)
        add_low_rank_(network, self.config, self.targets, self.train_also)
        self._trained = count_trained(network)  # while it is whole
