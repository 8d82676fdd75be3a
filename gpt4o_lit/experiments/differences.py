"""In what runs differ that a comparison should know of: configs, data, code, machines, budgets."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpt4o_lit.experiments.results import Study
from gpt4o_lit.experiments.run_costs import costs_of
from gpt4o_lit.experiments.run_files import Run, experiment_of

SILENT = "not recorded"
MOST_NAMES = 4
EQUALLY_LONG = 1.01
"""Batches of unequal texts have a few tokens more or less."""
Unlike = Mapping[str, Mapping[str, Sequence[Run]]]


def config_differences(study: Study) -> list[tuple[str, str, Any, Any]]:
    """(variant, key, value of the base, value of the variant), from the first run of each."""
    first: dict[str, Mapping[str, Any]] = {}
    for run in study.runs:
        if run.config:
            first.setdefault(run.variant, experiment_of(run))
    base = first.get(study.base, {})
    return [
        (variant, key, base.get(key), config.get(key))
        for variant, config in first.items()
        for key in dict.fromkeys([*base, *config])
        if config.get(key) != base.get(key)
    ]


def environment_differences(study: Study) -> dict[str, dict[str, list[Run]]]:
    """What of data, code, versions and hardware is not the same in all finished runs.

    Returns:
        By name of the field, the runs that have each value.
    """
    runs = study.finished()
    fields = [dict(_environment(run)) for run in runs]
    found: dict[str, dict[str, list[Run]]] = {}
    for name in dict.fromkeys(name for each in fields for name in each):
        by_value: dict[str, list[Run]] = {}
        for run, each in zip(runs, fields, strict=True):
            by_value.setdefault(str(each.get(name, SILENT)), []).append(run)
        if len(by_value) > 1:
            found[name] = by_value
    return found


def cautions(study: Study) -> list[str]:
    """What makes runs hard to compare, each in a sentence; most serious first."""
    unlike = environment_differences(study)
    found = [
        *_data(unlike),
        *_code(study, unlike),
        *_left_out(study),
        *_budgets(study),
        *_mixed_variants(study),
        *_seeds(study),
    ]
    machines = [name for name in unlike if name.startswith("hardware.")]
    if machines:
        names = ", ".join(name.removeprefix("hardware.") for name in machines)
        found.append(
            f"Runs were made on different hardware ({names}): seconds and speeds cannot be "
            "compared, and losses may differ in their last digits."
        )
    return found


def _environment(run: Run) -> list[tuple[str, Any]]:
    made = run.manifest
    found = [(name, made.get(name) or SILENT) for name in ("commit", "code")]
    data = made.get("data", {})
    found += [(f"data.{name}", data.get(name, SILENT)) for name in ("checksum", "tokenizer")]
    for group in ("versions", "hardware"):
        found += [(f"{group}.{name}", value) for name, value in made.get(group, {}).items()]
    return found


def _data(unlike: Unlike) -> list[str]:
    tokenizers = _said(unlike, "data.tokenizer")
    texts = _said(unlike, "data.checksum")
    found = []
    if len(tokenizers) > 1:
        found.append(
            f"Different tokenizers: {_who(tokenizers)}. A loss per token then counts other tokens, "
            "so it cannot be compared; bits per byte can."
        )
    elif len(texts) > 1:
        found.append(
            f"Different data: {_who(texts)}. A difference may come from the text and not from what "
            "was changed."
        )
    return [*found, *_silent(unlike, "data.checksum", "data")]


def _silent(unlike: Unlike, name: str, what: str) -> list[str]:
    """Of runs that do not tell what others do."""
    runs = unlike.get(name, {}).get(SILENT)
    if not runs:
        return []
    return [f"Not recorded what {what} it was: {_names(runs)}. Whether it is the same is unknown."]


def _said(unlike: Unlike, name: str) -> dict[str, Sequence[Run]]:
    return {value: runs for value, runs in unlike.get(name, {}).items() if value != SILENT}


def _code(study: Study, unlike: Unlike) -> list[str]:
    found = []
    for name in ("code", "commit", "versions.gpt4o-lit", "versions.torch"):
        values = _said(unlike, name)
        if len(values) > 1:
            found.append(
                f"Different code ({name.removeprefix('versions.')}): {_who(values)}. A difference "
                "may come from the code and not from what was changed."
            )
            break
    found += _silent(unlike, "code", "code")
    changed = [run for run in study.finished() if str(run.manifest.get("commit")).endswith("+")]
    if changed:
        found.append(
            f"{_count(changed)} made from a checkout with changes that were not committed "
            "(the commit ends in +), so the commit does not say all that ran."
        )
    return found


def _left_out(study: Study) -> list[str]:
    gone = [run for run in study.runs if run.left_out]
    diverged = [run for run in gone if run.left_out and run.left_out.startswith("it diverged")]
    found = []
    if gone:
        found.append(
            f"Left out of all statistics: {_names(gone)} (of {len(study.runs)} runs). The "
            "reasons are at the end."
        )
    if diverged:
        found.append(
            f"{_names(diverged)} diverged: what is left of such a variant looks better than the "
            "variant is."
        )
    return found


def _budgets(study: Study) -> list[str]:
    runs = study.finished()
    found = []
    for what, of in (("steps", lambda run: costs_of(run).steps),
                     ("tokens", lambda run: costs_of(run).tokens)):  # fmt: skip
        by_value = _by(runs, of)
        if None not in by_value and max(by_value) > EQUALLY_LONG * min(by_value):
            found.append(
                f"Runs were not trained equally long: {_who(by_value)} ({what}). Compare the "
                "curves at equal cost, not the ends."
            )
            break
    counts = _by(runs, lambda run: len(run.metrics[study.metric]))
    if study.at == "best" and len(counts) > 1:
        found.append(
            f"Runs had different numbers of validations ({_who(counts)}): the best of more of "
            "them is better by luck alone."
        )
    return found


def _mixed_variants(study: Study) -> list[str]:
    found = []
    for variant in study.variants:
        configs = [experiment_of(run) for run in study.finished(variant)]
        keys = {
            key
            for config in configs
            for key in config | configs[0]
            if config.get(key) != configs[0].get(key)
        }
        if keys:
            found.append(
                f"The runs of {variant} differ in more than their seed: "
                f"{', '.join(sorted(keys)[:MOST_NAMES])}."
            )
    return found


def _seeds(study: Study) -> list[str]:
    found = []
    by_variant = {name: sorted(study.values(name)) for name in study.variants}
    base = by_variant[study.base]
    if not base:
        found.append(f"No run of the base, {study.base}, counts: nothing can be compared with it.")
    alone = [name for name, seeds in by_variant.items() if len(seeds) == 1]
    if alone:
        found.append(
            f"One seed alone: {', '.join(alone)}. How much of a difference is chance cannot be "
            "known."
        )
    others = [name for name, seeds in by_variant.items() if seeds and seeds != base]
    if base and others:
        found.append(
            f"Not the seeds of the base: {', '.join(others)}. Only seeds that both have are "
            "compared."
        )
    order = "data.init_args.seed"
    orders = {run.config.get(order, 0) for run in study.finished()}
    if len(orders) == 1 and len({run.seed for run in study.finished()}) > 1:
        found.append(
            f"All runs read their data in the same order ({order} is {orders.pop()}): what seeds "
            "change is the first weights and dropout, and the spread is of these alone."
        )
    return found


def _by(runs: Sequence[Run], of: Callable[[Run], Any]) -> dict[Any, list[Run]]:
    found: dict[Any, list[Run]] = {}
    for run in runs:
        found.setdefault(of(run), []).append(run)
    return found


def _who(by_value: Mapping[Any, Sequence[Run]]) -> str:
    """Which runs have which value; the value most have first."""
    groups = sorted(by_value.items(), key=lambda item: -len(item[1]))
    words = [f"{short(value)} in {_names(runs)}" for value, runs in groups[:MOST_NAMES]]
    more = len(groups) - MOST_NAMES
    return "; ".join(words) + (f"; and {more} more values" if more > 0 else "")


def _names(runs: Sequence[Run]) -> str:
    """The runs by variant and seed, or how many there are."""
    if len(runs) > MOST_NAMES:
        return f"{len(runs)} runs"
    return ", ".join(f"{run.variant} seed {run.seed}" for run in runs)


def _count(runs: Sequence[Run]) -> str:
    return "1 run was" if len(runs) == 1 else f"{len(runs)} runs were"


def short(value: Any) -> str:
    """A value as it stands in a sentence: hashes lose their tail, numbers get their commas."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
