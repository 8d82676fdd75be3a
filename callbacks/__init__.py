"""Callbacks and loggers: when a thing happens in a run."""

from gpt4o_lit.callbacks.activation_aware_pruning import SparseGPTPruning, WandaPruning
from gpt4o_lit.callbacks.artefact import Artefact
from gpt4o_lit.callbacks.checkpoint import Checkpoint
from gpt4o_lit.callbacks.checkpoint_files import CheckpointFiles
from gpt4o_lit.callbacks.departures import Departures
from gpt4o_lit.callbacks.distillation import Distillation
from gpt4o_lit.callbacks.efficiency_report import EfficiencyReport
from gpt4o_lit.callbacks.elastic import Elastic
from gpt4o_lit.callbacks.evaluate import Evaluate
from gpt4o_lit.callbacks.explain import Explain
from gpt4o_lit.callbacks.int8_training import Int8Training
from gpt4o_lit.callbacks.label_quality import LabelQuality
from gpt4o_lit.callbacks.lora import LoRA
from gpt4o_lit.callbacks.manifest import Manifest
from gpt4o_lit.callbacks.metrics_log import MetricsLog
from gpt4o_lit.callbacks.mlflow_run import MlflowRun
from gpt4o_lit.callbacks.model_card import ModelCard
from gpt4o_lit.callbacks.movement_pruning import MovementPruning
from gpt4o_lit.callbacks.plots import Plots
from gpt4o_lit.callbacks.predictions import Predictions
from gpt4o_lit.callbacks.profile import Profile
from gpt4o_lit.callbacks.progress import Progress
from gpt4o_lit.callbacks.pruning import MagnitudePruning
from gpt4o_lit.callbacks.quantization import PostTrainingQuantization, QuantizationAwareTraining
from gpt4o_lit.callbacks.random_state import RandomState
from gpt4o_lit.callbacks.samples import Samples
from gpt4o_lit.callbacks.save_config import SaveConfig
from gpt4o_lit.callbacks.sensitivity import Sensitivity
from gpt4o_lit.callbacks.sparsity_map import SparsityMap
from gpt4o_lit.callbacks.stability import Stability
from gpt4o_lit.callbacks.structured_pruning import StructuredPruning
from gpt4o_lit.callbacks.text_quality import TextQuality
from gpt4o_lit.callbacks.throughput import Throughput
from gpt4o_lit.callbacks.wandb_run import WandbRun

__all__ = [
    "Artefact",
    "Checkpoint",
    "CheckpointFiles",
    "Departures",
    "Distillation",
    "EfficiencyReport",
    "Elastic",
    "Evaluate",
    "Explain",
    "Int8Training",
    "LabelQuality",
    "LoRA",
    "MagnitudePruning",
    "Manifest",
    "MetricsLog",
    "MlflowRun",
    "ModelCard",
    "MovementPruning",
    "Plots",
    "PostTrainingQuantization",
    "Predictions",
    "Profile",
    "Progress",
    "QuantizationAwareTraining",
    "RandomState",
    "Samples",
    "SaveConfig",
    "Sensitivity",
    "SparseGPTPruning",
    "SparsityMap",
    "Stability",
    "StructuredPruning",
    "TextQuality",
    "Throughput",
    "WandaPruning",
    "WandbRun",
]
