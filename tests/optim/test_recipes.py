"""Optimizers move every parameter once, decay the right ones, and come back from a checkpoint."""

import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gpt4o_lit.optim import Adafactor, AdamW, Muon, OptimizerRecipe, WarmupLinear
from gpt4o_lit.optim.groups import parameter_kinds
from gpt4o_lit.optim.muon import _iterate, _iterate_gram, orthogonalize

EVERY: list[OptimizerRecipe] = [
    AdamW(lr=1e-2),
    Muon(lr=1e-2),
    Muon(lr=1e-2, adamw_lr=3e-3, adjust="original", nesterov=False),
    Adafactor(lr=1e-1),
]


class Tiny(nn.Module):
    """An embedding, a norm, two hidden matrices (one of them two in one) and a head."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.norm = nn.LayerNorm(8)
        self.up = nn.Linear(8, 24)
        self.up.row_parts = (16, 8)
        self.down = nn.Linear(24, 8, bias=False)
        self.head = nn.Linear(8, 11, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.table(tokens_BT)
        x_BTD = x_BTD + self.down(torch.relu(self.up(self.norm(x_BTD))))
        return self.head(x_BTD)


def loss_of(module: nn.Module) -> Tensor:
    tokens_BT = torch.arange(44).reshape(4, 11) % 11
    logits_BTV = module(tokens_BT)
    return nn.functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), tokens_BT[:, 1:].flatten())


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> float:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(module)
        loss.backward()
        return loss

    for _ in range(steps):
        loss = optimizer.step(closure)  # type: ignore[arg-type]
    assert loss is not None
    return loss.item()


def decay_of(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        names[id(parameter)]: group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("recipe", EVERY, ids=repr)
def test_it_learns(recipe: OptimizerRecipe) -> None:
    module = Tiny()
    before = loss_of(module).item()
    assert train(module, recipe.build(module), 60) < 0.5 * before


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("recipe", EVERY, ids=repr)
def test_every_parameter_is_in_one_group_once(recipe: OptimizerRecipe, tied: bool) -> None:
    module = Tiny(tied)
    groups = recipe.build(module).param_groups
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(ids) == sorted(id(parameter) for parameter in module.parameters())


@pytest.mark.parametrize("decay_embeddings", [True, False])
@pytest.mark.parametrize("kind", [AdamW, Muon, Adafactor])
def test_norms_and_biases_do_not_decay(kind: type, decay_embeddings: bool) -> None:
    module = Tiny()
    recipe = kind(weight_decay=0.3, decay_embeddings=decay_embeddings)
    decay = decay_of(module, recipe.build(module))
    assert decay == {
        "table.weight": 0.3 if decay_embeddings else 0.0,
        "norm.weight": 0.0,
        "norm.bias": 0.0,
        "up.weight": 0.3,
        "up.bias": 0.0,
        "down.weight": 0.3,
    }


def test_frozen_parameters_are_left_out() -> None:
    module = Tiny()
    module.table.requires_grad_(False)
    assert "table.weight" not in decay_of(module, AdamW().build(module))
    with pytest.raises(ValueError, match="Tiny has no trainable parameter; unfreeze some"):
        AdamW().build(module.requires_grad_(False))


def test_muon_moves_hidden_matrices_alone() -> None:
    module = Tiny(tied=False)
    moved = [
        parameter
        for group in Muon().build(module).param_groups
        if group["algorithm"] == "muon"
        for parameter in group["params"]
    ]
    assert {id(p) for p in moved} == {id(module.up.weight), id(module.down.weight)}
    assert {id(p) for p in parameter_kinds(module).head} == {id(module.head.weight)}


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_equals_torch_muon(adjust: str, nesterov: bool) -> None:
    """Up to the bfloat16 in which torch.optim.Muon makes its matrices orthogonal."""
    torch.manual_seed(1)
    ours = nn.ModuleList([nn.Linear(16, 32, bias=False), nn.Linear(32, 16, bias=False)])
    theirs = nn.ModuleList([nn.Linear(16, 32, bias=False), nn.Linear(32, 16, bias=False)])
    theirs.load_state_dict(ours.state_dict())
    start = [parameter.detach().clone() for parameter in ours.parameters()]
    one = Muon(lr=0.01, adjust=adjust, nesterov=nesterov).build(ours)  # type: ignore[arg-type]
    other = torch.optim.Muon(
        theirs.parameters(), lr=0.01, weight_decay=0.1, nesterov=nesterov, adjust_lr_fn=adjust
    )
    for _ in range(3):
        for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            its.grad = mine.grad.clone()
        one.step()
        other.step()
    for mine, its, first in zip(ours.parameters(), theirs.parameters(), start, strict=True):
        assert (mine - its).norm() < 0.02 * (its - first).norm()


def test_the_rest_moves_exactly_as_under_adamw() -> None:
    ours, theirs = Tiny(), Tiny()
    theirs.load_state_dict(ours.state_dict())
    for module in (ours, theirs):
        for weight in (module.up.weight, module.down.weight):
            weight.requires_grad_(False)
    for module, recipe in ((ours, Muon(lr=1e-2)), (theirs, AdamW(lr=1e-2))):
        train(module, recipe.build(module), 5)
    assert all(
        torch.equal(mine, its)
        for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True)
    )


def test_fused_matrices_move_as_if_apart() -> None:
    fused, apart = (
        nn.Linear(8, 24, bias=False),
        nn.ModuleList([nn.Linear(8, 16, bias=False), nn.Linear(8, 8, bias=False)]),
    )
    fused.row_parts = (16, 8)
    grad = torch.randn(24, 8)
    with torch.no_grad():
        apart[0].weight.copy_(fused.weight[:16])
        apart[1].weight.copy_(fused.weight[16:])
    fused.weight.grad, apart[0].weight.grad, apart[1].weight.grad = grad, grad[:16], grad[16:]
    Muon().build(fused).step()
    Muon().build(apart).step()
    together = torch.cat([apart[0].weight, apart[1].weight])
    torch.testing.assert_close(fused.weight, together, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 40), (2, 40, 8)])
def test_orthogonalized_singular_values_are_near_one(shape: tuple[int, int, int]) -> None:
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape), num_steps=8))
    assert values.min() > 0.6
    assert values.max() < 1.3


@pytest.mark.parametrize("rank", [2, 8])
def test_the_detour_over_the_gram_matrix_ends_at_the_same_place(rank: int) -> None:
    matrices = torch.randn(3, 8, rank) @ torch.randn(3, rank, 40)
    matrices = matrices / matrices.norm(dim=(-2, -1), keepdim=True)
    torch.testing.assert_close(
        _iterate_gram(matrices, 5), _iterate(matrices, 5), atol=1e-3, rtol=1e-3
    )


def test_an_orthogonalized_zero_is_zero() -> None:
    assert not orthogonalize(torch.zeros(1, 4, 6), num_steps=5).any()


@pytest.mark.parametrize("recipe", EVERY, ids=repr)
def test_going_on_from_a_checkpoint_equals_never_having_stopped(recipe: OptimizerRecipe) -> None:
    module = Tiny()
    optimizer = recipe.build(module)
    train(module, optimizer, 3)
    file = io.BytesIO()
    torch.save({"module": module.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(module, optimizer, 3)

    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed = Tiny()
    resumed.load_state_dict(state["module"])
    fresh = recipe.build(resumed)
    fresh.load_state_dict(state["optimizer"])
    train(resumed, fresh, 3)
    assert all(
        torch.equal(mine, its)
        for mine, its in zip(resumed.parameters(), module.parameters(), strict=True)
    )


@pytest.mark.parametrize("recipe", EVERY, ids=repr)
def test_a_schedule_scales_every_group(recipe: OptimizerRecipe) -> None:
    optimizer = recipe.build(Tiny())
    rates = [group["lr"] for group in optimizer.param_groups]
    schedule = WarmupLinear(warmup=0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, 4))
    optimizer.step()
    scheduler.step()
    assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx(
        [0.75 * rate for rate in rates]
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdamW(lr=0.0), r"lr \(0.0\) must be above 0"),
        (lambda: AdamW(lr=float("nan")), r"lr \(nan\) must be above 0"),
        (lambda: AdamW(betas=(0.9, 1.0)), r"betas \(\(0.9, 1.0\)\) must be two numbers in"),
        (lambda: AdamW(weight_decay=-1.0), r"weight_decay \(-1.0\) must not be negative"),
        (lambda: Muon(momentum=1.0), r"momentum \(1.0\) must lie in"),
        (lambda: Muon(num_steps=0), r"num_steps \(0\) must lie in 1 to 99"),
        (lambda: Muon(adamw_lr=-1.0), r"adamw_lr \(-1.0\) must be above 0"),
        (lambda: Adafactor(beta2_decay=0.8), r"beta2_decay \(0.8\) must not be above 0"),
    ],
)
def test_nonsense_is_refused_by_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
