"""What strategies have in common under which a process may hold parts of the network."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.strategies import Strategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from gpt4o_lit.strategies.needs import Need, require_no_needs


class HoldsParts(Strategy):
    """Refuses who cannot do with parts; writes and reads checkpoints that are whole.

    It stands before Lightning's strategy among the bases, whose own checkpoints are good for as
    many processes as wrote them. Weights and the optimizer's state pass by `load_model_state_dict`,
    `optimizer_state` and `load_optimizer_state_dict` of the subclass.
    """

    lacks: ClassVar[tuple[Need, ...]]
    """What nobody who takes part in a run may need."""
    scales_losses: ClassVar[tuple[str, ...]] = ("16-mixed",)
    """Precisions in which it skips steps whose gradients overflow."""
    leaves_parts: ClassVar[bool] = False
    """Whether parts of a checkpoint that is a folder are read later, by whoever wants them."""

    @abstractmethod
    def whole_state(self, module: nn.Module) -> dict[str, Tensor] | None:
        """The whole weights of a module, on every process; None: each has them as it is.

        All processes call this at once.
        """

    @property
    def fits(self) -> bool:
        """Whether the run trains, and does not only measure."""
        task: Any = self.lightning_module
        return bool(task.trainer.state.fn == TrainerFn.FITTING)

    def refuse_who_needs_more(self) -> None:
        """Refuse callbacks, the task and its optimizer, and fp16, before processes meet.

        Raises:
            ValueError: one of them needs what this strategy lacks, or steps would be skipped.
        """
        task: Any = self.lightning_module
        trained = [task.optimizer_recipe] if self.fits else []
        name = type(self).__name__
        require_no_needs(name, self.lacks, [*task.trainer.callbacks, task, *trained])
        precision: str = task.trainer.precision
        if self.fits and precision in self.scales_losses:
            raise ValueError(
                f"trainer.precision ({precision}) skips steps whose gradients overflow, which the "
                f"processes of {name} may not all see; set it to bf16-mixed"
            )

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """As with whole networks: callbacks know what is loaded when a fit starts, and a network
        that was cut is as small as its weights before it is dealt out."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Its state is loaded by `load_optimizer_state_dict`."""
        return True

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None
    ) -> None:
        """Write one file."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """What is in the file, whole, on each process; of a folder too, or what is not in parts."""
        self.loaded_path = Path(self.broadcast(checkpoint_path))
        files, path = self.checkpoint_io, self.loaded_path
        if not self.leaves_parts:
            return files.load_checkpoint(path, None, weights_only)
        saved = files.load_checkpoint(path, "meta", weights_only)
        if "low_rank" in saved and not self.fits:  # its adapters are added to whole weights
            saved = files.load_checkpoint(path, None, weights_only)
        return saved
