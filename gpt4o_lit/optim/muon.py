"""Muon for hidden matrices and AdamW for the rest, as one optimizer.

Muon steps along the orthogonal matrix nearest to the momentum (kellerjordan.github.io/posts/muon).
The arithmetic is that of torch.optim.Muon, but matrices of one shape go through Newton-Schulz at
once, in float32 on a CPU that would emulate bfloat16 (torch.optim.Muon always takes bfloat16), and
matrices fused in one weight are taken apart first.

Shapes: M matrices of one shape, P rows, Q columns, P <= Q.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim.adamw import adamw

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
Adjust = Literal["match_rms_adamw", "original"]


def orthogonalize(matrices_MPQ: Tensor, num_steps: int, eps: float = 1e-7) -> Tensor:
    """Nearly U Vᵀ of each matrix U S Vᵀ: singular values come out between 0.7 and 1.2, or so."""
    tall = matrices_MPQ.shape[-2] > matrices_MPQ.shape[-1]
    x_MPQ = matrices_MPQ.mT if tall else matrices_MPQ
    x_MPQ = x_MPQ / x_MPQ.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    # Measured on CPU: the detour over the Gram matrix pays from twice as long as wide. It squares
    # the singular values, for which bfloat16 is too coarse.
    is_long = x_MPQ.shape[-1] >= 2 * x_MPQ.shape[-2] and x_MPQ.dtype != torch.bfloat16
    x_MPQ = (_iterate_gram if is_long else _iterate)(x_MPQ, num_steps)
    return x_MPQ.mT if tall else x_MPQ


def _iterate(x_MPQ: Tensor, num_steps: int) -> Tensor:
    """Newton-Schulz: X becomes (a + b G + c G²) X, where G = X Xᵀ."""
    a, b, c = COEFFICIENTS
    for _ in range(num_steps):
        gram_MPP = x_MPQ @ x_MPQ.mT
        factor_MPP = torch.baddbmm(gram_MPP, gram_MPP, gram_MPP, beta=b, alpha=c)
        x_MPQ = torch.baddbmm(x_MPQ, factor_MPP, x_MPQ, beta=a)
    return x_MPQ


def _iterate_gram(x_MPQ: Tensor, num_steps: int) -> Tensor:
    """The same by small products: follow G, gather the factors, apply them to X at the end."""
    a, b, c = COEFFICIENTS
    gram_MPP = x_MPQ @ x_MPQ.mT
    product_MPP = None
    for step in range(num_steps):
        factor_MPP = torch.baddbmm(gram_MPP, gram_MPP, gram_MPP, beta=b, alpha=c)
        factor_MPP.diagonal(dim1=-2, dim2=-1).add_(a)
        product_MPP = factor_MPP if product_MPP is None else factor_MPP @ product_MPP
        if step + 1 < num_steps:
            gram_MPP = factor_MPP @ gram_MPP @ factor_MPP
    return x_MPQ if product_MPP is None else product_MPP @ x_MPQ


def newton_schulz_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device has units for it: a GPU, or a CPU with AVX-512 BF16."""
    has_units = device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if has_units else torch.float32


def step_size(shape: torch.Size, adjust: Adjust) -> float:
    """What the learning rate is multiplied with, so that it means the same for every shape."""
    rows, columns = shape
    if adjust == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))


class MuonAdamW(torch.optim.Optimizer):
    """Each group says by `algorithm` which of the two moves it; both read the group's `lr`.

    A "muon" group has momentum, nesterov, num_steps, adjust and row_parts (() for whole weights);
    an "adamw" group has betas and eps; all have weight_decay.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        # `fused` and `capturable` tell load_state_dict to keep the step counts beside the weights.
        super().__init__(groups, {"fused": True, "capturable": False})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            if params and group["algorithm"] == "muon":
                self._muon_step(params, group)
            elif params:
                self._adamw_step(params, group)
        return loss

    def _muon_step(self, params: list[Tensor], group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for param in params:
            update = self._momentum(param, group)
            param.mul_(1.0 - group["lr"] * group["weight_decay"])
            parts = list(group["row_parts"]) or [param.shape[0]]
            for rows, direction in zip(param.split(parts), update.split(parts), strict=True):
                by_shape[rows.shape].append((rows, direction))
        for shape, pairs in by_shape.items():
            stacked_MPQ = torch.stack([direction for _, direction in pairs])
            stacked_MPQ = stacked_MPQ.to(newton_schulz_dtype(stacked_MPQ.device))
            moves_MPQ = orthogonalize(stacked_MPQ, group["num_steps"])
            lr = group["lr"] * step_size(shape, group["adjust"])
            for (rows, _), move in zip(pairs, moves_MPQ.unbind(), strict=True):
                rows.add_(move, alpha=-lr)

    def _momentum(self, param: Tensor, group: dict[str, Any]) -> Tensor:
        """The direction before it is made orthogonal."""
        assert param.grad is not None
        state = self.state[param]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(param.grad)
        buffer = state["momentum_buffer"]
        buffer.lerp_(param.grad, 1.0 - group["momentum"])
        return param.grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer

    def _adamw_step(self, params: list[Tensor], group: dict[str, Any]) -> None:
        for param in params:
            if "step" not in self.state[param]:
                step = torch.zeros((), dtype=torch.float32, device=param.device)
                means = {name: torch.zeros_like(param) for name in ("exp_avg", "exp_avg_sq")}
                self.state[param].update(step=step, **means)
        states = [self.state[param] for param in params]
        adamw(
            params,
            [param.grad for param in params if param.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
