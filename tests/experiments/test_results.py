"""What runs left is read as it is, and what does not count is named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt4o_lit.__main__ import main
from gpt4o_lit.experiments.results import Study, read_study
from gpt4o_lit.experiments.run_costs import costs_of, is_rounded_after_validation, taken_by
from tests.experiments.conftest import write_ablation, write_run


def read(*folders: Path, **options: str) -> Study:
    return read_study([str(folder) for folder in folders], **options)  # type: ignore[arg-type]


def reasons(study: Study) -> dict[str, str | None]:
    return {run.path.name: run.left_out for run in study.runs}


def test_an_ablation_says_what_it_is_about(rates: Path) -> None:
    study = read(rates.parent)  # found below
    assert (study.name, study.metric, study.mode, study.base) == (
        "rates", "val/loss", "min", "base",
    )  # fmt: skip
    assert study.variants == ["base", "better", "unclear"]
    assert study.values("better") == {0: 1.5, 1: 1.61, 2: 1.69}
    assert study.runs[3].changes == ("lr=0.02",)


def test_flags_outrank_the_ablation(rates: Path) -> None:
    study = read(rates, base="unclear", metric="val/accuracy")
    assert (study.mode, study.variants[0]) == ("max", "unclear")
    assert study.values("better")[0] == pytest.approx(1 / 2.5)


def test_plain_runs_are_grouped_by_what_is_not_seed_name_or_place(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / "a" / str(seed), seed=seed)
        write_run(tmp_path / "b" / str(seed), seed=seed, lr=0.5, name="other")
        write_run(tmp_path / "c" / str(seed), seed=seed, lr=1.0, more={"x": 1, "y": 2})
    study = read(tmp_path)
    assert study.variants == ["a", "b", "c"]
    assert [sorted(study.values(name)) for name in study.variants] == [[0, 1]] * 3
    assert read(tmp_path / "b", tmp_path / "a").variants == ["b", "a"]
    assert read(tmp_path, base=str(tmp_path / "b" / "1")).base == "b"


def test_variants_of_one_folder_are_called_by_what_is_unlike_the_base(tmp_path: Path) -> None:
    write_run(tmp_path / "1")
    write_run(tmp_path / "2", lr=0.5)
    write_run(tmp_path / "3", lr=1.0, more={"x": 1, "y": 2})
    assert read(tmp_path).variants == ["tiny", "lr=0.5", "variant"]
    assert read(tmp_path / "2", tmp_path / "1").variants == ["tiny", "lr=0.01"]


def test_the_configs_in_a_run_are_no_runs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "a")
    for below in ("checkpoints", "test/2026"):
        (run / below).mkdir(parents=True)
        (run / below / "config.yaml").write_text("{}")
    assert [each.path for each in read(tmp_path / "runs").runs] == [run]


def test_last_is_the_last_and_best_is_the_best(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", (3.0, 1.0, 2.0))
    assert read(run).values("tiny") == {0: 2.0}
    assert read(run, at="best").values("tiny") == {0: 1.0}
    assert read(run, at="best", metric="val/accuracy").values("tiny") == {0: 0.5}


def test_what_does_not_count_is_said(tmp_path: Path) -> None:
    write_run(tmp_path / "good")
    write_run(tmp_path / "half", seed=1, ended=False)
    write_run(tmp_path / "nan", (2.0, float("nan")), seed=2)
    write_run(tmp_path / "on", seed=3, manifest={"steps": 10})  # ended, and went on
    write_run(tmp_path / "failed", seed=6, ended=False, manifest={"error": "ValueError: no"})
    write_run(tmp_path / "stopped", seed=7, manifest={"stopped": "2026"})  # ended, and went on
    write_run(tmp_path / "again", manifest={"ended": "2025-01-01T00:00:00+00:00"})
    write_run(tmp_path / "empty", seed=4)
    (tmp_path / "empty" / "metrics.csv").unlink()
    write_run(tmp_path / "torn", seed=5)
    (tmp_path / "torn" / "manifest.json").write_text("{")
    study = read(tmp_path)
    said = reasons(study)
    assert said.pop("good") is None
    expected = {
        "half": "has not finished: its log ends at step 20",
        "nan": "diverged: val/loss is nan",
        "on": "has not finished",
        "failed": "it failed: ValueError: no",
        "stopped": "has not finished",
        "again": "good has the same seed and ended later",
        "empty": "logged nothing",
        "torn": "damaged",
    }
    for name, reason in expected.items():
        assert reason in str(said.pop(name))
    assert not said
    assert study.values("tiny") == {0: 2.0}


def test_a_run_of_an_ablation_that_never_started_is_said(rates: Path) -> None:
    told = json.loads((rates / "ablation.json").read_text())
    told["runs"].append({"variant": "better", "seed": 9, "directory": "better/seed_9"})
    (rates / "ablation.json").write_text(json.dumps(told))
    study = read(rates)
    assert reasons(study)["seed_9"] == "it has not started"
    assert sorted(study.values("better")) == [0, 1, 2]


def _no_run(folder: Path) -> list[Path]:
    (folder / "nothing").mkdir()
    return [folder / "nothing"]


def _unfinished(folder: Path) -> list[Path]:
    return [write_run(folder / "half", ended=False)]


def _damaged(folder: Path) -> list[Path]:
    (folder / "ablation.json").write_text('{"runs": [{"variant": "a"}]}')
    return [folder]


def _two_ablations(folder: Path) -> list[Path]:
    return [write_ablation(folder / name, {"base": {0: 1.0}}) for name in "ab"]


def _one_run(folder: Path) -> list[Path]:
    return [write_run(folder / "a")]


@pytest.mark.parametrize(
    ("make", "flags", "message"),
    [
        (lambda folder: [folder / "nowhere"], [], "nowhere is no run directory and has none below"),
        (_no_run, [], "nothing is no run directory and has none below"),
        (_unfinished, [], "none of the 1 runs has finished"),
        (_damaged, [], "ablation.json is damaged (KeyError: 'seed')"),
        (_two_ablations, [], "a report is about one ablation"),
        (_one_run, ["--metric", "val/los"], "has no metric 'val/los'"),
        (_one_run, ["--metric", "val/los"], "did you mean 'val/loss'?"),
        (_one_run, ["--metric", "perf/seconds"], "add --mode min or --mode max"),
        (_one_run, ["--base", "tinny"], "did you mean 'tiny'?"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    make: Callable[[Path], list[Path]],
    flags: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = [str(folder) for folder in make(tmp_path)]
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", *folders, *flags, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_costs_are_those_at_the_end_and_grow_evenly_in_between(tmp_path: Path) -> None:
    run = read(write_run(tmp_path / "a")).runs[0]
    costs = costs_of(run)
    assert (costs.steps, costs.tokens, costs.seconds, costs.flops) == (20, 1280, 10, 2e7)
    assert (costs.bytes, costs.training_speed, costs.writing_speed) == (4000, 128, None)
    assert taken_by(run, "tokens", [5, 7, 20, 25]) == pytest.approx([320, 448, 1280, 1600])
    assert taken_by(run, "nothing", [5]) is None


def test_packed_weights_are_what_a_run_weighs(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", manifest={"deployment": {"weight_bytes": 4100,
                     "decode_tokens_per_second": 50.0}})  # fmt: skip
    costs = costs_of(read(path).runs[0])
    assert (costs.bytes, costs.writing_speed) == (4100, 50)
    (path / "compressed").mkdir()
    (path / "compressed" / "model.safetensors").write_bytes(bytes(700))
    costs = costs_of(read(path).runs[0])
    assert (costs.bytes, costs.writing_speed) == (700, None)  # that speed was of floats
    entries = [{"run": str(path)}, {"run": f"{path}/compressed", "bytes_on_disk": 690,
                "decode": {"1": 80.0}}]  # fmt: skip
    (path / "efficiency").mkdir()
    (path / "efficiency" / "ledger.json").write_text(json.dumps({"entries": entries}))
    costs = costs_of(read(path).runs[0])
    assert (costs.bytes, costs.writing_speed) == (690, 80)
    assert not is_rounded_after_validation(read(path).runs[0])


def test_what_was_rounded_after_its_validation_is_known(tmp_path: Path) -> None:
    rounding = {"class_path": "gpt4o_lit.callbacks.PostTrainingQuantization"}
    path = write_run(tmp_path / "a", callbacks=[rounding])
    (path / "compressed").mkdir()
    assert is_rounded_after_validation(read(path).runs[0])
