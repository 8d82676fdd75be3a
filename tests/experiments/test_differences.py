"""What makes runs hard to compare is said in words."""

from pathlib import Path

import pytest

from gpt4o_lit.experiments.differences import (
    cautions,
    config_differences,
    environment_differences,
)
from gpt4o_lit.experiments.results import read_study
from tests.experiments.conftest import write_run


def said(folder: Path, **options: str) -> str:
    return "\n".join(cautions(read_study([str(folder)], **options)))  # type: ignore[arg-type]


def test_runs_that_differ_in_nothing_but_the_seed_raise_no_caution(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / "a" / str(seed), seed=seed)
        write_run(tmp_path / "b" / str(seed), seed=seed, lr=0.5)
    assert said(tmp_path) == ""
    study = read_study([str(tmp_path)])
    assert environment_differences(study) == {}
    key = "model.init_args.optimizer.init_args.lr"
    assert config_differences(study) == [("b", key, 0.01, 0.5)]


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"data": {"checksum": "text-2", "tokenizer": "bytes-1"}},
         "Different data: text-1 in tiny seed 0; text-2 in tiny seed 1"),
        ({"data": {"checksum": "text-2", "tokenizer": "other"}},
         "Different tokenizers: bytes-1 in tiny seed 0; other in tiny seed 1"),
        ({"data": {}}, "Not recorded what data it was: tiny seed 1."),
        ({"code": "bbbb"}, "Different code (code): aaaa in tiny seed 0; bbbb in tiny seed 1"),
        ({"commit": "beef"}, "Different code (commit)"),
        ({"versions": {"torch": "2.9"}}, "Different code (torch): 2.13.0 in tiny seed 0"),
        ({"commit": "c0ffee+"}, "1 run was made from a checkout with changes"),
        ({"hardware": {"cores": 64}}, "different hardware (cores): seconds and speeds cannot"),
    ],
)  # fmt: skip
def test_runs_of_other_data_code_or_machines_are_named(
    manifest: dict[str, object], words: str, tmp_path: Path
) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", seed=1, manifest=manifest)
    assert words in said(tmp_path)


def test_runs_that_were_not_trained_equally_long_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", (3.0, 2.0, 1.0), lr=0.5)
    assert "not trained equally long: 20 in tiny seed 0; 30 in lr=0.5 seed 0 (steps)" in said(
        tmp_path
    )
    assert "different numbers of validations" in said(tmp_path, at="best")
    assert "different numbers of validations" not in said(tmp_path)


def test_what_is_left_out_and_what_diverged_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", (2.0, float("nan")), seed=1)
    write_run(tmp_path / "c", seed=2, ended=False)
    words = said(tmp_path)
    assert "Left out of all statistics: tiny seed 1, tiny seed 2 (of 3 runs)" in words
    assert "tiny seed 1 diverged: what is left of such a variant looks better" in words


def test_seeds_that_tell_little_are_named(tmp_path: Path) -> None:
    data = {"init_args": {"seed": 0}}
    for seed in range(3):
        write_run(tmp_path / "a" / str(seed), seed=seed, data=data)
    write_run(tmp_path / "b" / "7", seed=7, lr=0.5, data=data)
    words = said(tmp_path)
    assert "One seed alone: b." in words
    assert "Not the seeds of the base: b." in words
    assert "in the same order (data.init_args.seed is 0)" in words


def test_a_base_of_which_no_run_counts_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a", ended=False)
    write_run(tmp_path / "b", lr=0.5)
    assert "No run of the base, tiny, counts" in said(tmp_path)


def test_runs_of_a_variant_with_other_configs_are_named(rates: Path) -> None:
    config = rates / "better" / "seed_1" / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.02", "lr: 0.7"))
    key = "model.init_args.optimizer.init_args.lr"
    assert f"The runs of better differ in more than their seed: {key}." in said(rates)
