"""Adapters of low rank as a directory that the library peft opens."""

import os
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from gpt4o_lit.interop.family import Family
from gpt4o_lit.interop.names import NAMES, Names
from gpt4o_lit.interop.run import PREFIX
from gpt4o_lit.interop.save import choose_family, write_json
from gpt4o_lit.interop.tensors import Rule, rules
from gpt4o_lit.model import TransformerConfig

# R rank, O outputs, I inputs

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
THEIRS = "base_model.model."
TASKS = {1: "CAUSAL_LM", 2: "SEQ_2_SEQ_LM"}  # by the number of stacks


def save_adapter(saved: dict[str, Any], directory: Path) -> Family:
    """Write the adapters of a checkpoint, and what was trained beside them; returns their family.

    Where one matrix of ours is several of theirs (queries, keys and values; gate and up), each of
    theirs gets the same A, and its own rows of B: the same sums.

    Raises:
        ValueError: before anything is written: no family of transformers computes the network, or
            peft has no place for what was trained beside the adapters.
    """
    config, settings = TransformerConfig.from_dict(saved["transformer_config"]), saved["low_rank"]
    family = choose_family(config)
    _require_places(settings["trained"], family)
    state = {name.removeprefix(PREFIX): tensor for name, tensor in saved["state_dict"].items()}
    adapted, whole = _collect(config, NAMES[family.model_type], state, settings)
    tensors = {THEIRS + name: tensor.clone() for name, tensor in (adapted | whole).items()}
    directory.mkdir(parents=True, exist_ok=True)
    part = directory / f"{WEIGHTS}.part"
    save_file(tensors, part, metadata={"format": "pt"})
    os.replace(part, directory / WEIGHTS)
    write_json(
        directory / CONFIG, describe(family, settings, _modules(adapted, 2), _modules(whole))
    )
    return family


def _collect(
    config: TransformerConfig, names: Names, state: dict[str, Tensor], settings: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of adapters, and of what was trained whole, by their names."""
    adapted: dict[str, Tensor] = {}
    whole: dict[str, Tensor] = {}
    for rule in rules(config, names):
        layer, _, last = rule.ours.rpartition(".")
        if last == "weight" and layer in settings["layers"]:
            adapted |= _parts(rule, *(state[f"{layer}.low_rank.{part}"] for part in "AB"))
        elif layer in settings["trained"]:
            whole |= rule.write(state[rule.ours])
    if config.ties_head and "tokens" in settings["trained"]:
        whole[names.head] = state["tokens.weight"]  # their copies of trained layers are not tied
    return adapted, whole


def _parts(rule: Rule, a_RI: Tensor, b_OR: Tensor) -> dict[str, Tensor]:
    """The adapter of one of our matrices, as adapters of those of theirs that it is made of."""
    rows = [shape[1 if rule.transposed else 0] for shape in rule.theirs.values()]
    tensors: dict[str, Tensor] = {}
    for name, part_OR in zip(rule.theirs, b_OR.split(rows), strict=True):
        module = name.removesuffix(".weight")
        tensors |= {f"{module}.lora_A.weight": a_RI, f"{module}.lora_B.weight": part_OR}
    return tensors


def _modules(tensors: dict[str, Tensor], words: int = 1) -> list[str]:
    """The modules that such tensors are of, whose names lack the last words."""
    return sorted({name.rsplit(".", words)[0] for name in tensors})


def describe(
    family: Family, settings: dict[str, Any], adapted: list[str], whole: list[str]
) -> dict[str, Any]:
    """What adapter_config.json says; layers go by their full names."""
    alpha = settings["alpha"]
    return {
        "peft_type": "LORA",
        "task_type": TASKS[len(family.stacks)] if "decoder" in family.stacks else None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": settings["rank"],
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": settings["dropout"],
        "use_rslora": settings["rank_stabilized"],
        "fan_in_fan_out": NAMES[family.model_type].transposed,
        "bias": "none",
        "target_modules": adapted,
        "modules_to_save": whole or None,
    }


def _require_places(trained: list[str], family: Family) -> None:
    """Encoders' vectors and heads are parts of other modules, or shared by several."""
    shared = [name for name in trained if name in ("tokens", "head")]
    if shared and family.stacks != {"decoder"}:
        raise ValueError(
            f"peft has no place for {shared[0]} of {family.model_type}, which train_also names; "
            "take the run itself, or `gpt4o-lit export`"
        )
