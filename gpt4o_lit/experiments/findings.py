"""What can be said of each variant, in numbers and in words."""

from collections.abc import Mapping
from dataclasses import dataclass

from gpt4o_lit.experiments.results import Study
from gpt4o_lit.experiments.statistics import LEVEL, Comparison, compare, holm

MOST_SENTENCES = 12


@dataclass(frozen=True)
class Finding:
    """A variant against the base, as people read it."""

    comparison: Comparison
    corrected: float | None
    """p, corrected for all variants that were tested."""
    verdict: str

    @property
    def is_evidence(self) -> bool:
        """Whether the corrected p is below the level."""
        return self.corrected is not None and self.corrected < LEVEL


def findings(study: Study) -> dict[str, Finding]:
    """What can be said of each variant but the base; in words too."""
    base = study.values(study.base)
    told = {
        name: compare(study.values(name), base) for name in study.variants if name != study.base
    }
    tested = {name: each.p for name, each in told.items() if each.p is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {
        name: Finding(each, corrected.get(name), _verdict(study, each, corrected.get(name)))
        for name, each in told.items()
    }


def _verdict(study: Study, told: Comparison, corrected: float | None) -> str:
    if told.difference is None:
        return f"not compared: no seed in common with {study.base}"
    less = told.difference < 0
    word = "better" if less == (study.mode == "min") else "worse"
    if told.count == 1:
        return f"{word if told.difference else 'equal'} with the one seed: no interval and no test"
    if corrected is None:
        alike = "equal" if told.difference == 0 else f"{word} by the same at every seed"
        return f"{alike}: seeds show no spread to judge by"
    if corrected < LEVEL:
        return f"{word}: evidence at {LEVEL:.0%}"
    few = ", and so few seeds would show only a very large one" if told.count < 4 else ""
    alone = told.p is not None and told.p < LEVEL
    lost = ", once p is corrected" if alone else ""
    return f"no evidence of a difference{lost}{few}"


def in_short(study: Study, found: Mapping[str, Finding]) -> list[str]:
    """A sentence for each variant; of many, for those alone of which there is evidence."""
    lines, rest = [], 0
    for name, each in found.items():
        if len(found) > MOST_SENTENCES and not each.is_evidence:
            rest += 1
            continue
        told = each.comparison
        size = "" if told.difference is None else f"{signed(told.difference)}, "
        if told.low is not None and told.high is not None:
            size = f"{size}95% interval {signed(told.low)} to {signed(told.high)}, "
        p = "" if each.corrected is None else f" (corrected p {told_p(each.corrected)})"
        lines.append(f"{name}: {size}{each.verdict}{p}.")
    if rest:
        lines.append(f"No evidence of a difference for the other {rest} of {len(found)} variants.")
    return lines or [f"There is no variant but {study.base}: nothing to compare."]


def figure(value: float) -> str:
    """Four digits behind the point, or a power of ten where that would show none."""
    return f"{value:,.4f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.2e}"


def signed(value: float) -> str:
    """The same with its sign."""
    return ("+" if value > 0 else "−" if value < 0 else "") + figure(abs(value))


def told_p(value: float) -> str:
    """A p-value as it is usual to tell it."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
