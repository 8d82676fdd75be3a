"""Variants are whole experiments before anything starts, and no two are the same."""

from typing import Any

import pytest

from gpt4o_lit.experiments.changes import read_changes
from gpt4o_lit.experiments.grid import Grid
from gpt4o_lit.experiments.resolve import resolve_grid
from gpt4o_lit.experiments.settings import difference

DECODER = "model.init_args.transformer.decoder"


def grid(variants: dict[str, Any], config: Any = "quickstart", **flags: Any) -> Grid:
    return Grid(
        name="mine",
        base=read_changes({"config": config}).with_(read_changes(flags)),
        variants={name: read_changes(body) for name, body in variants.items()},
        seeds=(0,),
        metric="val/loss",
        mode="min",
        compare_to="base",
    )


def test_a_variant_differs_in_what_it_says_and_in_nothing_else() -> None:
    base, post, half = resolve_grid(
        grid(
            {
                "post": {f"{DECODER}.norm.placement": "post"},
                "half": {"callbacks.MagnitudePruning.schedule.final": 0.75},
            },
            config=["quickstart", "with/prune_magnitude"],
        )
    )
    assert difference(base.config, post.config) == {f"{DECODER}.norm.placement": ("pre", "post")}
    key = "trainer.callbacks.MagnitudePruning.schedule.final"
    assert difference(base.config, half.config) == {key: (0.5, 0.75)}
    assert half.experiment.callbacks()[0].schedule.final == 0.75


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {f"{DECODER}.norm.placment": "post"},
            f"variant a: {DECODER}.norm.placment matches nothing .* did you mean "
            f"'{DECODER}.norm.placement'?",
        ),
        ({"modell.init_args.compile": True}, "did you mean 'model.init_args.compile'?"),
        ({f"{DECODER}.norm.placement": "pots"}, "variant a: .*did you mean 'post'?"),
        ({"callbacks": {"add": "WandaPrunin"}}, "variant a: .*did you mean .*WandaPruning'?"),
        (
            {"callbacks": {"add": {"class_path": "Stability", "init_args": {"on_nonfinit": 1}}}},
            r"variant a: trainer.callbacks: (?!Expected).*did you mean 'on_nonfinite'\?",
        ),
        ({f"{DECODER}.norm.placement": "pre"}, "variants base and a are the same experiment"),
    ],
)
def test_what_cannot_be_run_is_named_before_anything_starts(
    body: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        resolve_grid(grid({"a": body}))
    assert "\n" not in str(raised.value)
