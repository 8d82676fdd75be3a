"""MODEL_CARD.md: what a run was trained on, how large it is, and what it costs to deploy."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from gpt4o_lit.callbacks.manifest import add, had_ended, metrics_of
from gpt4o_lit.evaluation.deploy import DeploymentCost, measure
from gpt4o_lit.model import count_parameters


class ModelCard(Callback):
    """Writes the card when training ends; every figure in it was counted or measured.

    Args:
        measure: Open the run in a process of its own, and tell what it takes there, in
            manifest.json too. False leaves that part out.
    """

    def __init__(self, measure: bool = True) -> None:
        self.measure = measure

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and write."""
        if not trainer.is_global_zero or had_ended(trainer):
            return  # a run that had ended before keeps its card
        run = Path(trainer.default_root_dir)
        parts = [
            f"# {run.resolve().name}",
            _trained_on(trainer),
            _parameters(pl_module),
            _quality(trainer),
        ]
        if self.measure:
            cost = measure(run)
            parts.append(_deployment(cost))
            add(run, {"deployment": asdict(cost)})
        (run / "MODEL_CARD.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _trained_on(trainer: Trainer) -> str:
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    told = datamodule.trained_on(trainer.global_step * trainer.accumulate_grad_batches)
    return f"## What was it trained on?\n\n{trainer.global_step:,} steps. {told}"


def _parameters(pl_module: Any) -> str:
    counts = count_parameters(pl_module.transformer.config)
    rows = "\n".join(f"| {kind} | {number:,} |" for kind, number in counts.items())
    return f"## How many parameters has it?\n\n| part | parameters |\n|---|---:|\n{rows}"


def _quality(trainer: Trainer) -> str:
    metrics = {k: v for k, v in sorted(metrics_of(trainer).items()) if k.startswith("val/")}
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in metrics.items())
    title = "## How good is it?\n\nAt the last validation:"
    return f"{title}\n\n| metric | value |\n|---|---:|\n{rows}"


def _deployment(cost: DeploymentCost) -> str:
    decode = cost.decode_tokens_per_second
    written = "none (it writes no text)" if decode is None else f"{decode:,.0f} tokens/s"
    return (
        "## What does it cost to deploy?\n\n"
        f"Measured on this machine with {cost.threads} threads, batch 1; "
        f"weights in {cost.weights}.\n\n"
        "| what | figure |\n|---|---:|\n"
        f"| weights | {cost.weight_bytes / 2**20:,.1f} MiB |\n"
        f"| peak memory of the process | {cost.peak_memory_bytes / 2**20:,.0f} MiB |\n"
        f"| reading (prefill) | {cost.prefill_tokens_per_second:,.0f} tokens/s |\n"
        f"| writing (decode) | {written} |"
    )
