"""Who needs what a strategy lacks is refused by name, and nobody else."""

import pytest
from lightning.pytorch.callbacks import EMAWeightAveraging

from gpt4o_lit.callbacks import Distillation, MagnitudePruning, Samples, Stability
from gpt4o_lit.optim import AdamW, Muon
from gpt4o_lit.strategies.needs import (
    A_COPY,
    GRADIENTS,
    WHOLE_VOCABULARY,
    WHOLE_WEIGHTS,
    Need,
    require_no_needs,
    unmet,
)


@pytest.mark.parametrize(
    ("need", "part", "told"),
    [
        (
            WHOLE_WEIGHTS,
            MagnitudePruning(),
            "MagnitudePruning needs weights that are whole, and FSDP2 holds parts of them; take "
            "--config with/ddp, or leave MagnitudePruning out",
        ),
        (WHOLE_WEIGHTS, Muon(), "Muon needs weights that are whole, and FSDP2 holds parts"),
        (GRADIENTS, Stability(), "Stability looks at gradients before a step, and FSDP2 keeps"),
        (WHOLE_VOCABULARY, Distillation(), "Distillation needs the logits of all pieces"),
        (A_COPY, EMAWeightAveraging(), "EMAWeightAveraging copies a network, and FSDP2's cannot"),
    ],
)
def test_who_needs_what_is_lacking_is_refused_by_name(need: Need, part: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        require_no_needs("FSDP2", [need], [Samples(), part])


def test_others_and_what_is_off_are_not() -> None:
    lacks = [WHOLE_WEIGHTS, A_COPY, GRADIENTS, WHOLE_VOCABULARY]
    assert unmet(Samples(), lacks) is unmet(AdamW(), lacks) is None
    assert unmet(MagnitudePruning(), [GRADIENTS]) is None
    off = MagnitudePruning(enabled=False)
    assert unmet(off, lacks) is WHOLE_WEIGHTS
    require_no_needs("FSDP2", lacks, [Samples(), AdamW(), off])  # raises nothing
