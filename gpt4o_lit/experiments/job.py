"""What an experiment asks of devices: its network, its rows, its precision."""

from dataclasses import asdict, replace
from typing import Any

import torch

from gpt4o_lit.callbacks.lora import LoRA
from gpt4o_lit.data.tables import TablesDataModule
from gpt4o_lit.evaluation.devices import Device
from gpt4o_lit.evaluation.plan import Job
from gpt4o_lit.evaluation.rehearsal import Amend, Micro
from gpt4o_lit.experiments.experiment import Experiment
from gpt4o_lit.model import TransformerConfig
from gpt4o_lit.tasks import Classification, ExtractiveQA, Pretraining, Task, TokenClassification

PRECISIONS = {
    "32": (torch.float32, torch.float32, "fp32"),
    "bf16-mixed": (torch.float32, torch.bfloat16, "bf16"),
    "bf16-true": (torch.bfloat16, torch.bfloat16, "bf16"),
    "16-mixed": (torch.float32, torch.float16, "bf16"),
    "16-true": (torch.float16, torch.float16, "bf16"),
    "transformer-engine": (torch.bfloat16, torch.bfloat16, "fp8"),
}
"""In what weights lie, in what products are, and the rate of these."""
ALIASES = {"32-true": "32", "bf16": "bf16-mixed", "16": "16-mixed"}


def job_of(experiment: Experiment, device: Device, devices: int = 1) -> Job:
    """The run that `fit` would make of an experiment.

    Raises:
        ValueError: nothing tells how large it is.
    """
    task, data, settings = experiment.model, experiment.datamodule, experiment.settings
    return Job(
        config=described(task, data),
        micro=micro_batch(task, data, settings.trainer.precision, device.name == "cpu"),
        recipe=task.optimizer_recipe,
        device=device,
        devices=devices,
        accumulate=settings.trainer.accumulate_grad_batches or 1,
        rate=_precision(settings.trainer.precision)[2],
        amend=_amendment(experiment),
        **_groups(settings.trainer.strategy),
    )


def _amendment(experiment: Experiment) -> Amend | None:
    """What adapters do to the network."""
    callbacks = experiment.callbacks() if experiment.settings.trainer.callbacks else []
    adapters = [each for each in callbacks if isinstance(each, LoRA) and each.enabled]
    return adapters[0].prepare if adapters else None


def _groups(strategy: Any) -> dict[str, int]:
    """Sizes of groups that the experiment's strategy was told."""
    told = getattr(strategy, "init_args", None) or {}
    sizes = {"replicas": told.get("replicas", 1), "tensor": told.get("size") or 1}
    return {name: size for name, size in sizes.items() if size > 1}


def described(task: Task, data: Any) -> TransformerConfig:
    """The network that the task would build, without reading the data.

    Raises:
        ValueError: nothing tells how many pieces there will be.
    """
    config = task.transformer_config
    if isinstance(task, Classification | ExtractiveQA | TokenClassification):
        config = replace(config, num_classes=2)  # as many as the data has, which hardly weigh
    return replace(config, vocab_size=max(_pieces(data, config), config.vocab_size or 0))


def _pieces(data: Any, config: TransformerConfig) -> int:
    recipe = data.tokenizer_recipe
    if hasattr(recipe, "vocab_size"):
        return int(recipe.vocab_size)
    if recipe.sample_bytes == 0:  # it trains nothing
        return int(recipe.build(()).vocab_size)
    if config.vocab_size is not None:
        return config.vocab_size
    try:
        return int(data.tokenizer.vocab_size)
    except (OSError, ValueError):
        raise ValueError(
            f"{type(recipe).__name__} does not tell how many pieces it will find; set "
            "--model.init_args.transformer.vocab_size to about as many"
        ) from None


def micro_batch(task: Task, data: Any, precision: Any, on_cpu: bool) -> Micro:
    """The longest rows that the data can have, as many as it hands out at once."""
    weights, products, _ = _precision(precision)
    how: dict[str, Any] = {"weights": weights, "products": products, "on_cpu": on_cpu}
    if isinstance(task, Pretraining):
        lengths = task.objective.lengths(data.seq_len)
        return Micro(rows=data.batch_size, documents=True, **asdict(lengths), **how)
    if not isinstance(data, TablesDataModule):
        raise ValueError(f"{type(data).__name__} tells no lengths; count its tokens by hand")
    source, target, documents = 0, data.longest_row, True
    if hasattr(data, "pairs"):
        documents = False
        target = data.pairs.max_target_len
        if task.transformer_config.kind == "encoder_decoder":
            source = data.pairs.max_source_len
        else:
            target += data.pairs.max_source_len
    asked = 1 if isinstance(task, Classification) else target
    rows = max(1, data.batch_tokens // (source + target))
    return Micro(rows=rows, target=target, asked=asked, source=source, documents=documents, **how)


def _precision(name: Any) -> tuple[torch.dtype, torch.dtype, str]:
    name = ALIASES.get(str(name or 32), str(name or 32))
    if name not in PRECISIONS:
        raise ValueError(
            f"trainer.precision ({name}) is not planned for; choose from {', '.join(PRECISIONS)}"
        )
    return PRECISIONS[name]
