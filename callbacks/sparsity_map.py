"""Where a network is sparse, layer by layer, as it trains."""

import re
from pathlib import Path
from typing import Any, ClassVar

import matplotlib

matplotlib.use("Agg")
from lightning import Callback, Trainer
from matplotlib import pyplot as plt

from gpt4o_lit.callbacks.pictures import show_pictures
from gpt4o_lit.compression import Targets
from gpt4o_lit.compression.sparsity import sparsity_of

BLOCK = re.compile(r"(.*\.\d+)\.(.+)")  # decoder.blocks.0 and what is in it


class SparsityMap(Callback):
    """Logs the share of zeros of each matrix after validations, and draws it by block.

    Numbers are `sparsity/NAME`, the picture is sparsity/step_N/density.png in the run's directory;
    W&B, TensorBoard and MLflow have both. It counts zeros, whoever made them: pruning, or a parent.

    Args:
        targets: The matrices. Default: those of attention and feed-forward.
        every_n_validations: Look after each n-th validation.
        enabled: False writes nothing.
    """

    needs_whole_weights: ClassVar[bool] = True

    def __init__(
        self, targets: Targets | None = None, every_n_validations: int = 1, enabled: bool = True
    ) -> None:
        if every_n_validations < 1:
            raise ValueError(
                f"every_n_validations ({every_n_validations}) must be at least 1; set it to 1"
            )
        self.targets = targets or Targets()
        self.every_n_validations, self.enabled = every_n_validations, enabled
        self._validations = 0
        self._found: dict[str, float] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Whatever pattern matches no layer is told before training."""
        if self.enabled:
            self.targets.weights(pl_module.transformer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Count, where numbers can still be logged."""
        self._found = {}
        if not self.enabled or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._validations += 1
        if self._validations % self.every_n_validations == 0:
            weights = self.targets.weights(pl_module.transformer)
            self._found = {name: sparsity_of(weight) for name, weight in weights.items()}
            pl_module.log_dict({f"sparsity/{name}": each for name, each in self._found.items()})

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Draw what was counted."""
        if self._found and trainer.is_global_zero:
            folder = Path(trainer.default_root_dir) / "sparsity" / f"step_{trainer.global_step}"
            draw(self._found, folder / "density.png")
            show_pictures(trainer, "sparsity", [folder / "density.png"])


def draw(sparsities: dict[str, float], path: Path) -> None:
    """A heat map of the share that is left: a row for each block, a column for each matrix in it.

    Args:
        sparsities: Share of zeros by the name of a layer, such as decoder.blocks.0.attention.qkv.
        path: A PNG file to write.
    """
    places = {name: _place(name) for name in sparsities}
    rows = list(dict.fromkeys(row for row, _ in places.values()))
    columns = list(dict.fromkeys(column for _, column in places.values()))
    grid = [[float("nan")] * len(columns) for _ in rows]
    size = (2.5 + 1.1 * len(columns), 2.0 + 0.3 * len(rows))
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    for name, (row, column) in places.items():
        y, x = rows.index(row), columns.index(column)
        left = grid[y][x] = 1 - sparsities[name]
        color = "white" if left > 0.5 else "black"
        axes.text(x, y, f"{left:.0%}", ha="center", va="center", color=color, fontsize=8)
    shown = axes.imshow(grid, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_title("weights that are left", fontsize=10)
    figure.colorbar(shown, label="density")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _place(name: str) -> tuple[str, str]:
    """Block and matrix; a layer outside blocks is one of its own."""
    found = BLOCK.fullmatch(name)
    return (found[1], found[2]) if found else (name, "weight")
