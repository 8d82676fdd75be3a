"""DeepSpeed's ZeRO: optimizer, gradients and weights in parts over all processes."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.distributed_c10d import default_pg_timeout

from gpt4o_lit.strategies.needs import A_COPY, GRADIENTS, WHOLE_WEIGHTS, Need
from gpt4o_lit.strategies.parts import HoldsParts


class DeepSpeed(HoldsParts, DeepSpeedStrategy):
    """ZeRO (arXiv:1910.02054) on GPUs or CPUs, with checkpoints that other strategies go on from.

    Each process steps its part of the weights, in float32; in bfloat16 the network it computes with
    is a rounded copy of them. Checkpoints are whole, one file as with one process, where
    DeepSpeed's own would be a folder that is good for as many processes as wrote it.

    Args:
        stage: What lies in parts: 1 the optimizer, 2 its gradients too, 3 the weights too.
        offload_optimizer: Keep the optimizer in the memory of the CPU, and step there.
        offload_parameters: Keep the parts of weights there too (stage 3).
        bucket_size: Numbers that are sent in one piece.
        timeout: How long a process waits for another, such as 0:10:00.
    """

    lacks: ClassVar[tuple[Need, ...]] = (WHOLE_WEIGHTS, A_COPY, GRADIENTS)
    scales_losses = ("16-mixed", "16-true")

    def __init__(
        self,
        stage: Literal[1, 2, 3] = 2,
        offload_optimizer: bool = False,
        offload_parameters: bool = False,
        bucket_size: int = 50_000_000,
        timeout: timedelta = default_pg_timeout,
    ) -> None:
        if find_spec("deepspeed") is None:
            raise ValueError("DeepSpeed is not installed; run: pip install 'gpt4o-lit[deepspeed]'")
        if offload_parameters and stage != 3:
            raise ValueError(
                f"offload_parameters needs stage 3, which has weights in parts; stage is {stage}"
            )
        if bucket_size < 1:
            raise ValueError(f"bucket_size ({bucket_size}) must be at least 1; leave it out")
        zero: dict[str, Any] = {
            "stage": stage,
            "reduce_bucket_size": bucket_size,
            "allgather_bucket_size": bucket_size,
            "stage3_prefetch_bucket_size": bucket_size,
        }
        if offload_optimizer:
            zero["offload_optimizer"] = {"device": "cpu"}
        if offload_parameters:
            zero["offload_param"] = {"device": "cpu"}
        if not torch.cuda.is_available():
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        super().__init__(
            timeout=timeout,
            config={
                "zero_optimization": zero,
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
                # A step is due when Trainer says so, at the short end of an epoch too.
                "managed_gradient_accumulation": False,
                "train_micro_batch_size_per_gpu": 1,  # of no consequence
            },
        )
        self.stage = stage
        self._groups: list[list[nn.Parameter]] = []  # what the optimizer steps, before it is parts

    def setup_environment(self) -> None:
        """Refuse who needs more than parts, then meet the other processes.

        Raises:
            ValueError: a callback or the optimizer needs weights that are whole, or looks at
                gradients.
        """
        self.refuse_who_needs_more()
        assert self.parallel_devices is not None
        if self.root_device.type == "cpu":  # DeepSpeed tells processes apart by their devices
            self.parallel_devices = [
                torch.device("cpu", number) for number in range(len(self.parallel_devices))
            ]
        DDPStrategy.setup_environment(self)  # DeepSpeedStrategy's asks for CUDA first

    @property
    def handles_gradient_accumulation(self) -> bool:
        """Trainer does."""
        return False

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """DeepSpeed knows when to reduce."""
        yield

    def _format_batch_size_and_grad_accum_config(self) -> None:
        assert isinstance(self.config, dict)
        task: Any = self.lightning_module
        self.config["gradient_accumulation_steps"] = 1
        self.config["gradient_clipping"] = task.trainer.gradient_clip_val or 0.0

    def model_sharded_context(self) -> Any:
        """A network is built whole, so that the optimizer's groups can tell matrices by shape."""
        return Strategy.model_sharded_context(self)

    def _setup_model_and_optimizer(
        self, model: nn.Module, optimizer: Any, lr_scheduler: Any = None
    ) -> tuple[Any, Any]:
        self._groups = [] if optimizer is None else [g["params"] for g in optimizer.param_groups]
        return super()._setup_model_and_optimizer(model, optimizer, lr_scheduler)

    def weigh_gradients(self, factor: float) -> None:
        """Have the coming step multiply the gradients by a factor before it clips them."""
        zero: Any = self.optimizers[0]
        zero.override_loss_scale(zero.loss_scale / factor)

    def optimizer_step(self, optimizer: Any, closure: Any, model: Any = None, **kwargs: Any) -> Any:
        """Let DeepSpeed step; what comes then is weighed anew."""
        result = super().optimizer_step(optimizer, closure, model, **kwargs)
        self.optimizers[0].custom_loss_scaler = False  # type: ignore[attr-defined]
        return result

    @property
    def grad_norm(self) -> float:
        """Of the last step, before it was clipped."""
        return float(self.deepspeed_engine.get_global_grad_norm())

    @torch.no_grad()
    def whole_state(self, module: nn.Module) -> dict[str, Tensor] | None:
        """The whole weights of a module as it computes with them; None where they are whole."""
        return None if self.stage < 3 else _gathered(module)

    # Checkpoints ---------------------------------------------------------------------------------

    @torch.no_grad()
    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights, of what is trained those in float32 that the optimizer steps."""
        from deepspeed.utils import safe_get_full_fp32_param

        assert self.lightning_module is not None
        state = _gathered(self.lightning_module)
        for name, weight in self.lightning_module.named_parameters():
            if weight.requires_grad and self.fits:
                state[name] = safe_get_full_fp32_param(weight).cpu()
        return state

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Before the weights are dealt out."""
        Strategy.load_model_state_dict(self, checkpoint, strict)

    @torch.no_grad()
    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The whole state, by the places that weights have in the optimizer's groups as it is
        without parts; nothing on all processes but the first."""
        from deepspeed.utils import safe_get_full_optimizer_state

        zero = getattr(optimizer, "_optimizer", optimizer)
        base = zero.optimizer
        if base.state:
            self._link(zero)
        parts: dict[str, Tensor] = next(iter(base.state.values()), {})
        state: dict[int, dict[str, Tensor]] = {}
        groups: list[dict[str, Any]] = []
        for settings, weights in zip(base.param_groups, self._groups, strict=True):
            places = range(len(state), len(state) + len(weights))
            for place, weight in zip(places, weights, strict=True):
                state[place] = {
                    name: safe_get_full_optimizer_state(weight, name).cpu()
                    if part.ndim
                    else part.clone()
                    for name, part in parts.items()
                }
            groups.append({**settings, "params": list(places)})
        return {"state": state, "param_groups": groups} if self.is_global_zero else {}

    @torch.no_grad()
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's part of the whole state, and of the weights in float32."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        zero: Any = self.optimizers[0]
        (whole,) = checkpoint["optimizer_states"]
        assert self.lightning_module is not None
        names = {weight: name for name, weight in self.lightning_module.named_parameters()}
        weights = [weight for group in self._groups for weight in group]
        if whole["state"]:
            self._begin(zero, next(iter(whole["state"].values())))
        places = [place for group in whole["param_groups"] for place in group["params"]]
        for place, weight in zip(places, weights, strict=True):
            device = self.root_device
            safe_set_full_fp32_param(weight, checkpoint["state_dict"][names[weight]].to(device))
            for name, value in whole["state"].get(place, {}).items():
                if value.ndim:
                    safe_set_full_optimizer_state(weight, value.to(device), name)

    def _begin(self, zero: Any, like: Mapping[str, Tensor]) -> None:
        """Give each part a state, which DeepSpeed would at the first step."""
        parts = zero.fp32_partitioned_groups_flat if self.stage == 3 else None
        for part in parts or zero.single_partition_of_fp32_groups:
            zero.optimizer.state[part] = {
                name: torch.zeros_like(part) if value.ndim else value.clone()
                for name, value in like.items()
            }
        self._link(zero)

    def _link(self, zero: Any) -> None:
        """Tell each weight where its state is; DeepSpeed does so before all groups have stepped."""
        if self.stage < 3:
            zero._hp_optimizer_states_linked = False
            zero._lazy_init_hp_params_optimizer_state()


def _gathered(module: nn.Module) -> dict[str, Tensor]:
    """The whole state of a module, on every process."""
    from deepspeed import zero

    state = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        with zero.GatheredParameters([tensor], enabled=hasattr(tensor, "ds_id")):
            state[name] = tensor.detach().cpu().clone()
    return state
