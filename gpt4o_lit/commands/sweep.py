"""`gpt4o-lit sweep FILE`: search keys by random points, TPE and ASHA."""

import signal
import sys
from pathlib import Path
from typing import Any

from gpt4o_lit.experiments.ablation import Ablation, locked
from gpt4o_lit.experiments.launch import Machine
from gpt4o_lit.experiments.probe import clear, require_metric
from gpt4o_lit.experiments.resolve import resolve_grid
from gpt4o_lit.experiments.sweep import Search, first_point, require_same_question
from gpt4o_lit.experiments.sweep_file import Sweep, read_sweep
from gpt4o_lit.experiments.tables import table
from gpt4o_lit.parse_errors import OneLineParser
from gpt4o_lit.tokenizer.load import nearest_name

EXAMPLE = """examples:
  gpt4o-lit sweep mine.yaml
  gpt4o-lit sweep mine.yaml --parallel 2
The same command again goes on where it was stopped. docs/sweeps.md shows such a file."""
HOME = Path("runs") / "sweeps"
SHOWN = 5


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "sweep",
        "Search the keys of a file for the best value of a metric (Optuna: pip [sweep]); each "
        "trial is an ordinary run.",
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add("file", type=Path, help="base, search, metric, trials, sampler, asha")
    add("--dir", type=Path, help=f"where runs lie as trial_N/seed_0; default: {HOME}/NAME")
    add("--parallel", type=int, default=1, help="runs side by side")
    add("--threads", type=int, help="CPU threads of a run; default: the cores, shared out")
    return parser


def main(argv: list[str]) -> int:
    """Check, search, and tell the best points."""
    args = build_parser().parse_args(argv)
    if args.parallel < 1 or (args.threads is not None and args.threads < 1):
        raise ValueError("--parallel and --threads must be at least 1")
    if not args.file.is_file():
        raise FileNotFoundError(f"{args.file} does not exist{nearest_name(args.file)}")
    sweep = read_sweep(args.file)
    directory = args.dir or HOME / sweep.name
    grid = sweep.grid(first_point(sweep))
    first = Ablation(grid=grid, directory=directory, variants=resolve_grid(grid))
    machine = Machine(parallel=args.parallel, threads=args.threads)
    with locked(directory, _tell):
        clear(directory)
        require_same_question(sweep, directory, first.variants[0].config)
        search = Search(sweep, directory, machine, _tell)
        if not search.study.get_trials(deepcopy=False):
            require_metric(first, machine)
        try:
            search.run()
        except KeyboardInterrupt:
            again = f"gpt4o-lit sweep {args.file}" + (f" --dir {args.dir}" if args.dir else "")
            _tell(f"\nstopped; go on: {again}")
            return 128 + signal.SIGINT
    return _tell_best(sweep, directory, search.study.trials)


def _tell_best(sweep: Sweep, directory: Path, trials: list[Any]) -> int:
    ended = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if not ended:
        raise ValueError(f"no trial in {directory} has ended; the lines above say why")
    ended.sort(key=lambda trial: trial.value, reverse=sweep.mode == "max")
    rows = [
        [f"trial_{t.number:04d}", f"{t.value:.4f}", *map(str, t.params.values())]
        for t in ended[:SHOWN]
    ]
    print("\n" + table(["trial", sweep.metric, *ended[0].params], rows))
    print(f"next: gpt4o-lit test --resume {directory}/{rows[0][0]}/seed_0")
    return 0


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
