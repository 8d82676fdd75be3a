"""Who needs whole weights is refused where processes hold parts of them."""

import pytest

from gpt4o_lit.callbacks import MagnitudePruning, Samples
from gpt4o_lit.optim import AdamW, Muon
from gpt4o_lit.strategies.whole import require_none_needs_whole


@pytest.mark.parametrize("part", [MagnitudePruning(), Muon()])
def test_who_needs_whole_weights_is_refused_by_name(part: object) -> None:
    name = type(part).__name__
    with pytest.raises(ValueError, match=f"{name} needs weights that are whole, and FSDP2 holds"):
        require_none_needs_whole("FSDP2", [Samples(), part])


def test_others_and_what_is_off_are_not() -> None:
    require_none_needs_whole("FSDP2", [Samples(), AdamW(), MagnitudePruning(enabled=False)])
