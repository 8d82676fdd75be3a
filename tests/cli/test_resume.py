"""`--resume RUN` becomes the run's config and the checkpoint that the verb wants."""

from pathlib import Path

import pytest

from gpt4o_lit.cli import TRANSFORMER, closing_words, resolve
from gpt4o_lit.run_directory import RunDirectory

SIZE = "model/llama_15m"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    found = RunDirectory(tmp_path / "run")
    found.checkpoints.mkdir(parents=True)
    found.config.write_text("name: run\n", encoding="utf-8")
    (found.checkpoints / "last.ckpt").write_bytes(b"")
    return found


def checkpoint_of(verb: str, run: RunDirectory) -> str:
    args, _ = resolve([verb, "--resume", str(run.path)])
    return Path(args[args.index("--ckpt_path") + 1]).name


def test_fit_goes_on_from_the_last_and_other_verbs_read_the_best(run: RunDirectory) -> None:
    assert checkpoint_of("test", run) == "last.ckpt"  # never validated: there is no best
    (run.checkpoints / "best.ckpt").write_bytes(b"")
    assert checkpoint_of("fit", run) == "last.ckpt"
    for verb in ("validate", "test", "predict"):
        assert checkpoint_of(verb, run) == "best.ckpt"


def test_a_new_run_may_begin_where_another_ended(run: RunDirectory) -> None:
    args, chosen = resolve(["fit", "--config", "with/bf16", "--from", str(run.path)])
    assert chosen is None
    assert args[1:3] == ["--config", str(run.config)]
    assert args.index(f"--model.init_args.pretrained={run.path}") > args.index("--config", 3)
    assert f"{TRANSFORMER}={{encoder: null, decoder: null}}" in args
    with pytest.raises(FileNotFoundError, match="is no run directory"):
        resolve(["fit", "--from", "nowhere"])


def test_fit_goes_on_in_its_own_directory_and_other_verbs_write_below_it(run: RunDirectory) -> None:
    assert resolve(["fit", "--resume", str(run.path)])[1] == run
    args, chosen = resolve(["test", "--resume", str(run.path)])
    assert chosen is None
    assert Path(args[args.index("--run_dir") + 1]).parent == run.path / "test"


def test_closing_words_end_with_three_commands_that_can_be_pasted(run: RunDirectory) -> None:
    commands = closing_words(run, "it's a\nlong prompt").splitlines()[-3:]
    assert all(command.startswith("  gpt4o-lit ") for command in commands)
    assert """--prompt 'it'"'"'s a' """ in commands[0]


def test_a_directory_can_be_chosen_but_not_for_a_run_that_goes_on(run: RunDirectory) -> None:
    args, _ = resolve(["test", "--resume", str(run.path), "--run_dir", "mine"])
    assert args[args.index("--run_dir") + 1 :] == ["mine"]
    with pytest.raises(ValueError, match="--run_dir cannot be given"):
        resolve(["fit", "--resume", str(run.path), "--run_dir=mine"])


@pytest.mark.parametrize("arguments", [[TRANSFORMER, SIZE], [f"{TRANSFORMER}={SIZE}"]])
def test_a_size_is_found_by_name_in_both_spellings(arguments: list[str]) -> None:
    args, _ = resolve(["fit", *arguments])
    assert args[1] == TRANSFORMER
    assert Path(args[2]).is_file()
    with pytest.raises(ValueError, match="needs a value"):
        resolve(["fit", TRANSFORMER])


def test_runs_of_one_second_have_a_directory_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = {RunDirectory.fresh("many").path for _ in range(20)}
    assert len(runs) == len(list(Path("runs/many").iterdir())) == 20
