"""How much each layer suffers when it is pruned or rounded alone."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import yaml

matplotlib.use("Agg")
from lightning import Callback, Trainer
from matplotlib import pyplot as plt
from tqdm import tqdm

from gpt4o_lit.callbacks.calibration import calibrating, require_batches
from gpt4o_lit.compression.recipe import EVERYTHING
from gpt4o_lit.compression.sensitivity import (
    Change,
    Choice,
    choose_formats,
    loss_rises,
    pruned_to,
    rounded_to,
    stored_bytes,
)
from gpt4o_lit.compression.targets import Targets
from gpt4o_lit.model.weight_format import WeightFormat

FORMATS = {
    "int8": WeightFormat(bits=8, rounds_inputs=True),
    "int4": WeightFormat(bits=4, group_size=32),
}


class Sensitivity(Callback):
    """Before a validation: prunes and rounds one layer at a time, and measures the loss.

    Writes sensitivity.json, a heat map, and recipe.yaml for `compress`: a format for each layer,
    so that the loss rises least within a budget of bytes.

    Args:
        sparsities: Shares of a layer's smallest weights that are pruned.
        budget: Bytes of all weights, as a share of those in float32.
        num_batches: Training batches that the loss is measured on.
        targets: The layers. Default: all that can be quantized.
    """

    def __init__(
        self,
        sparsities: list[float] | None = None,
        budget: float = 0.2,
        num_batches: int = 4,
        targets: Targets | None = None,
    ) -> None:
        self.sparsities = [0.25, 0.5, 0.75] if sparsities is None else sparsities
        for sparsity in self.sparsities:
            if not 0 < sparsity < 1:
                raise ValueError(f"sparsities ({sparsity}) must be above 0 and below 1; set 0.5")
        if not 0 < budget <= 1:
            raise ValueError(f"budget ({budget}) must be above 0 and at most 1; set it to 0.2")
        self.budget, self.num_batches = budget, num_batches
        self.targets = targets or EVERYTHING

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Measure, unless the network is being trained."""
        if trainer.state.fn != "validate":
            return
        require_batches(trainer, self.num_batches)
        weights = self.targets.weights(pl_module.transformer)
        for name, weight in weights.items():
            FORMATS["int4"].require_width(name, weight.shape[-1])
        changes: dict[str, Change] = {
            **{label: rounded_to(format) for label, format in FORMATS.items()},
            **{f"{share:.0%} pruned": pruned_to(share) for share in self.sparsities},
        }
        rises: dict[str, dict[str, float]] = {name: {} for name in weights}
        with calibrating(trainer, pl_module, self.num_batches) as losses:
            found = loss_rises(
                weights, changes, lambda: sum(float(loss()) for loss in losses) / len(losses)
            )
            total = len(weights) * len(changes)
            for layer, label, rise in tqdm(found, "layers", total, leave=False):
                rises[layer][label] = rise
        if trainer.is_global_zero:
            self._write(Path(trainer.default_root_dir), weights, rises)

    def _write(self, folder: Path, weights: Any, rises: dict[str, dict[str, float]]) -> None:
        choices = {
            layer: [
                Choice("float32", None, stored_bytes(weight, None), 0.0),
                *(
                    Choice(label, format, stored_bytes(weight, format), rises[layer][label])
                    for label, format in FORMATS.items()
                ),
            ]
            for layer, weight in weights.items()
        }
        full = sum(stored_bytes(weight, None) for weight in weights.values())
        chosen = choose_formats(choices, self.budget * full)
        (folder / "sensitivity.json").write_text(json.dumps(rises, indent=1) + "\n", "utf-8")
        (folder / "recipe.yaml").write_text(recipe(chosen, self.budget), encoding="utf-8")
        draw(rises, folder / "sensitivity.png")
        share = sum(each.num_bytes for each in chosen.values()) / full
        print(f"\nmixed recipe of {share:.3f} of the bytes: {folder / 'recipe.yaml'}")


def recipe(chosen: dict[str, Choice], budget: float) -> str:
    """YAML for `compress --recipe`: int4, and rules for the layers that have another format."""

    def values(format: WeightFormat | None) -> dict[str, Any] | None:
        if format is None:
            return None
        return {
            "bits": format.bits,
            "group_size": format.group_size,
            "rounds_inputs": format.rounds_inputs,
        }

    kinds = list(EVERYTHING.kinds)
    rules = []
    for label in sorted({each.label for each in chosen.values()} - {"int4"}):
        own = [layer for layer, each in chosen.items() if each.label == label]
        format = next(each.format for each in chosen.values() if each.label == label)
        rules.append({"targets": {"kinds": kinds, "names": own}, "format": values(format)})
    formats = {
        "format": values(FORMATS["int4"]),
        "targets": {"kinds": kinds, "names": list(chosen)},
        "rules": rules,
    }
    callback = {
        "class_path": "gpt4o_lit.callbacks.PostTrainingQuantization",
        "init_args": {"method": "gptq", "formats": formats},
    }
    text = yaml.safe_dump({"trainer": {"callbacks+": [callback]}}, sort_keys=False)
    return f"# A format for each layer, within {budget:.3f} of the bytes of float32.\n{text}"


def draw(rises: dict[str, dict[str, float]], path: Path) -> None:
    """A heat map: layers down, changes across, the colour by the logarithm of the rise."""
    layers, labels = list(rises), list(next(iter(rises.values())))
    values = [[rises[layer][label] for label in labels] for layer in layers]
    figure, axes = plt.subplots(
        figsize=(2.5 + 1.1 * len(labels), 1.2 + 0.26 * len(layers)), layout="constrained"
    )
    floor = 1e-5
    shown = [[max(value, floor) for value in row] for row in values]
    image = axes.imshow(
        shown, aspect="auto", cmap="viridis", norm=matplotlib.colors.LogNorm(vmin=floor)
    )
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(layers)), layers, fontsize=8)
    middle = (max(map(max, shown)) * floor) ** 0.5
    for row, numbers in enumerate(values):
        for column, value in enumerate(numbers):
            color = "white" if value < middle else "black"
            axes.text(
                column, row, f"{value:+.4f}", ha="center", va="center", color=color, fontsize=7
            )
    figure.colorbar(image, label="rise of the loss (nats per token)")
    figure.savefig(path, dpi=120)
    plt.close(figure)
