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
        """Refuse callbacks, and in training the task and its optimizer, before processes meet.

        Raises:
            ValueError: one of them needs what this strategy lacks.
        """
        task: Any = self.lightning_module
        trained = [task.optimizer_recipe] if self.fits else []
        require_no_needs(type(self).__name__, self.lacks, [*task.trainer.callbacks, task, *trained])

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
        place = "meta" if self.leaves_parts else None
        return self.checkpoint_io.load_checkpoint(self.loaded_path, place, weights_only)
