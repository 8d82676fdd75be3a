"""A search over keys by Optuna: each trial an ordinary run, all that is known in one journal."""

import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4o_lit.experiments.ablation import CONFIG, Run
from gpt4o_lit.experiments.launch import Forked, Machine
from gpt4o_lit.experiments.resolve import resolve_grid
from gpt4o_lit.experiments.schedule import PAUSE, outcome_of, stop_all, terminated_by_interrupt
from gpt4o_lit.experiments.settings import difference
from gpt4o_lit.experiments.sweep_file import Range, Sweep

JOURNAL, QUESTION = "optuna.log", "sweep.json"
LOOK = 0.5
"""Seconds from one look at a run's metrics to the next."""


@dataclass
class _Trial:
    """A point that is being tried."""

    optuna: Any
    run: Run
    job: Forked
    begun: float
    looked: float = 0.0
    pruned: bool = False


class Search:
    """Asks Optuna for points and tells it what came of them.

    Args:
        sweep: What is searched.
        directory: Where runs and the journal lie.
        machine: How runs are started.
        told: Hears a line for each trial.
    """

    def __init__(
        self, sweep: Sweep, directory: Path, machine: Machine, told: Callable[[str], None]
    ) -> None:
        self.sweep, self.directory, self.machine, self.told = sweep, directory, machine, told
        self.study = open_study(sweep, directory)

    def run(self) -> None:
        """Try points until there are as many as are asked for; those of an earlier process go on.

        Raises:
            KeyboardInterrupt: this process was told to stop; runs have saved and can go on.
        """
        running = _optuna().trial.TrialState.RUNNING
        left = [t for t in self.study.get_trials(deepcopy=False) if t.state == running]
        active: dict[int, _Trial] = {}
        with terminated_by_interrupt():
            try:
                while active or left or self._asks:
                    for slot in set(range(self.machine.parallel)) - active.keys():
                        found = self._begin(left, slot)
                        if found is not None:
                            active[slot] = found
                    for slot, trial in list(active.items()):
                        self._look(trial)
                        code = trial.job.poll()
                        if code is not None:
                            del active[slot]
                            self._end(trial, code)
                    time.sleep(PAUSE)
            except BaseException:
                stop_all([trial.job for trial in active.values()])
                raise

    @property
    def _asks(self) -> bool:
        return len(self.study.get_trials(deepcopy=False)) < self.sweep.trials

    def _begin(self, left: list[Any], slot: int) -> _Trial | None:
        if left:
            trial = _optuna().trial.Trial(self.study, left.pop(0)._trial_id)
        elif self._asks:
            trial = self.study.ask()
        else:
            return None
        keys = {key: _suggest(trial, key, space) for key, space in self.sweep.search.items()}
        folder = self.directory / f"trial_{trial.number:04d}"
        run = Run(variant=folder.name, seed=0, path=folder / "seed_0")
        if run.record.status == "finished":  # and we were killed before we could tell
            self._tell_value(trial, run)
            return None
        try:
            (variant,) = resolve_grid(self.sweep.grid(keys))
        except ValueError as error:  # such as heads that do not divide a width
            self.study.tell(trial, state=_optuna().trial.TrialState.FAIL)
            self.told(f"{run.variant}: failed: {error}")
            return None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(variant.text, encoding="utf-8")
        job = self.machine.start(run.arguments(), run.path, slot)
        return _Trial(optuna=trial, run=run, job=job, begun=time.monotonic())

    def _look(self, trial: _Trial) -> None:
        """Tell Optuna of validations, and stop the run where that is enough."""
        if self.sweep.asha is None or trial.pruned or time.monotonic() - trial.looked < LOOK:
            return
        trial.looked = time.monotonic()
        known = self.study.get_trials(deepcopy=False)[trial.optuna.number].intermediate_values
        for row in trial.run.record.rows:
            value, step = row.get(self.sweep.metric), row["step"] + 1
            if value is None or step in known:
                continue
            trial.optuna.report(value, step)
            trial.pruned = trial.pruned or trial.optuna.should_prune()
        if trial.pruned:
            trial.job.stop()

    def _end(self, trial: _Trial, code: int) -> None:
        states, record = _optuna().trial.TrialState, trial.run.record
        if record.status == "finished":
            self._tell_value(trial.optuna, trial.run)
        elif trial.pruned and record.status == "stopped":
            self.study.tell(trial.optuna, state=states.PRUNED)
            self._say(trial.optuna, trial.run, f"stopped at step {record.step}")
        else:
            outcome = outcome_of(trial.run, code, time.monotonic() - trial.begun)
            self.study.tell(trial.optuna, state=states.FAIL)
            self._say(trial.optuna, trial.run, f"failed: {outcome.error}")

    def _tell_value(self, trial: Any, run: Run) -> None:
        """Of a run that has ended: the best value that its metric ever had."""
        best = run.record.best(self.sweep.metric, self.sweep.mode)
        if best is None:
            self.study.tell(trial, state=_optuna().trial.TrialState.FAIL)
            self._say(trial, run, f"failed: it logged no {self.sweep.metric} that is a number")
        else:
            self.study.tell(trial, best[0])
            self._say(trial, run, f"{self.sweep.metric} {best[0]:.4f}")

    def _say(self, trial: Any, run: Run, words: str) -> None:
        point = ", ".join(f"{key}={each}" for key, each in trial.params.items())
        self.told(f"{run.variant}: {words}; {point}")


def open_study(sweep: Sweep, directory: Path) -> Any:
    """The study of a directory, with all trials that were told of before."""
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    backend = optuna.storages.journal.JournalFileBackend(str(directory / JOURNAL))
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.create_study(
        storage=storage,
        study_name=sweep.name,
        direction="minimize" if sweep.mode == "min" else "maximize",
        load_if_exists=True,
        pruner=optuna.pruners.NopPruner()
        if sweep.asha is None
        else optuna.pruners.SuccessiveHalvingPruner(sweep.asha.first, sweep.asha.factor),
    )
    seed = sweep.seed + len(study.get_trials(deepcopy=False))  # or a restart would draw again
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    study.sampler = samplers[sweep.sampler](seed=seed)
    return study


def require_same_question(sweep: Sweep, directory: Path, config: Mapping[str, Any]) -> None:
    """See that trials which were made before are of the experiment and the metric as they are now.

    Args:
        config: The whole config at the first point; keys of the search may change.

    Raises:
        ValueError: they are not.
    """
    asked = {"metric": sweep.metric, "mode": sweep.mode, "config": config}
    file = directory / QUESTION
    if not file.is_file():
        file.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")
        return
    was = json.loads(file.read_text(encoding="utf-8"))
    searched = tuple(f"config.{place}{key}" for key in sweep.search for place in ("", "trainer."))
    for key, (before, now) in difference(was, json.loads(json.dumps(asked))).items():
        if not key.startswith(searched):
            raise ValueError(
                f"{directory} has trials with {key.removeprefix('config.')} {before}, which is "
                f"{now} now; remove it, or choose another --dir"
            )


def first_point(sweep: Sweep) -> dict[str, Any]:
    """One to see before the search that every key is there."""
    return {
        key: space.low if isinstance(space, Range) else space[0]
        for key, space in sweep.search.items()
    }


def _suggest(trial: Any, key: str, space: Range | list[Any]) -> Any:
    """A value; choices that are no plain values go by their place in JSON."""
    if isinstance(space, list):
        words = [json.dumps(each) for each in space]
        return json.loads(trial.suggest_categorical(key, words))
    low, high, step = space.low, space.high, space.step
    if isinstance(low, int) and isinstance(high, int) and isinstance(step, int | None):
        return trial.suggest_int(key, low, high, step=step or 1, log=space.log)
    return trial.suggest_float(key, low, high, step=step, log=space.log)


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ValueError("sweep needs optuna: pip install 'gpt4o-lit[sweep]'") from error
    return optuna
