"""`gpt4o-lit fit|validate|test|predict`: LightningCLI, config names and run directories."""

import contextlib
import logging
import os
import shlex
import signal
import sys
import warnings
from argparse import RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from jsonargparse import DefaultHelpFormatter, Namespace, set_parsing_settings
from lightning import Callback, LightningDataModule, LightningModule
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gpt4o_lit import configs
from gpt4o_lit.callbacks import (
    Artefact,
    Checkpoint,
    CheckpointFiles,
    Departures,
    Elastic,
    Manifest,
    ModelCard,
    Plots,
    Predictions,
    Progress,
    RandomState,
    Samples,
    SaveConfig,
    Throughput,
)
from gpt4o_lit.callbacks.elastic import accumulated
from gpt4o_lit.interop.checkpoints import newest_before
from gpt4o_lit.interop.run import require_same_network
from gpt4o_lit.launch import (
    Launch,
    Meeting,
    Place,
    finish,
    keep_place,
    take_folder,
    take_place,
)
from gpt4o_lit.parse_errors import explain
from gpt4o_lit.run_directory import RunDirectory
from gpt4o_lit.strategies.allocator import keep_freed_memory

HARMLESS = (
    "LightningCLI's args parameter",
    ".*does not have many workers",
    ".*treespec, LeafSpec",
    "The `srun` command is available",
    "It is recommended to use `self.log.*sync_dist",  # tasks sum over all processes themselves
    "Since DeepSpeed handles gradient clipping",  # and is told our weighting
    "Checkpoint directory .* exists and is not empty",  # that of the run that goes on
    r"Be aware .*callbacks: \[('(RandomState|Elastic)'(, )?)+\]",  # they are of training alone
)
RUN_DIR = "GPT4O_LIT_RUN_DIR"  # tells the processes of one launch
TRANSFORMER = "--model.init_args.transformer"
EXAMPLES = {
    "fit": """examples:
  gpt4o-lit fit --config quickstart
  gpt4o-lit fit --config quickstart --config with/bf16 --trainer.max_steps 1000
  gpt4o-lit fit --resume runs/quickstart/TIME
  gpt4o-lit fit --from runs/quickstart/TIME --config with/qat_int4
  gpt4o-lit fit --config quickstart --print_config
  gpt4o-lit fit --model.help gpt4o_lit.tasks.Pretraining
--resume RUN goes on with a run by its own config; with --resume_from previous, from the checkpoint
before the last. --from RUN begins a new run with the config and the weights of another.""",
    **{
        verb: f"""examples:
  gpt4o-lit {verb} --resume runs/quickstart/TIME
--resume RUN takes the config and the best checkpoint of a run."""
        for verb in ("validate", "test", "predict")
    },
}
OURS = ("--config", "-c", "--resume", "--resume_from", "--from", "--run_dir", TRANSFORMER)
METRICS_LOG = {"class_path": "gpt4o_lit.callbacks.MetricsLog"}


class ExperimentHelp(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Leaves the examples as they are."""


class ExperimentParser(LightningArgumentParser):
    """Reports a mistake as a ValueError of one line, with the nearest right word."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= {"allow_abbrev": False}  # half a key is a mistake too
        super().__init__(*args, formatter_class=ExperimentHelp, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Raise instead of printing the usage and leaving."""
        known = (flag.lstrip("-") for action in self._actions for flag in action.option_strings)
        raise ValueError(explain(message, known)) from ex


class ExperimentCLI(LightningCLI):
    """LightningCLI in which each run owns a directory, and flags outrank the checkpoint."""

    def __init__(self, args: list[str], run_dir: RunDirectory | None = None) -> None:
        self.run_dir = run_dir
        self.launch: Launch | None = None
        self.began_with: int | None = None
        self.verb = args[0]
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            trainer_defaults={"logger": [METRICS_LOG], "log_every_n_steps": 10},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=ExperimentParser,
            args=args,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The verb that is asked for: a parser of each would take most of a second."""
        return {self.verb: LightningCLI.subcommands()[self.verb]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run's name and directory, and the callbacks that every run has."""
        parser.epilog = EXAMPLES[self.verb]
        parser.add_argument("--name", type=str, default="run", help="Runs lie in runs/NAME/TIME.")
        parser.add_argument(
            "--run_dir", type=str | None, default=None, help="The run's directory instead of that."
        )
        parser.add_lightning_class_args(Checkpoint, "checkpoint")
        parser.add_lightning_class_args(Throughput, "throughput")
        parser.add_lightning_class_args(Samples, "samples")
        parser.add_lightning_class_args(ModelCard, "model_card")
        parser.add_lightning_class_args(Progress, "progress")

    def _parse_ckpt_path(self) -> None:
        """Leave the config alone: a checkpoint's hyperparameters never outrank config and flags."""

    def before_instantiate_classes(self) -> None:
        """Choose the run's directory and send everything that writes there."""
        config = self.config[self.subcommand]
        self.launch = Launch.here()
        if self.launch is not None:
            self.run_dir = self._meet(self.launch, config)
        elif self.run_dir is None:
            self.run_dir = _shared_run_dir(config.name, config.run_dir)
        config.run_dir = str(self.run_dir.path)
        config.trainer.default_root_dir = str(self.run_dir.path)
        config.checkpoint.dirpath = str(self.run_dir.checkpoints)
        for logger in config.trainer.logger if isinstance(config.trainer.logger, list) else []:
            if "save_dir" in logger.get("init_args", {}):
                logger.init_args.save_dir = str(self.run_dir.path)
        strategy = config.trainer.strategy
        if isinstance(strategy, str) and "." in strategy:  # where a name is read, a class is meant
            config.trainer.strategy = Namespace(class_path=strategy, init_args=Namespace())
        config.weights_only = True  # a checkpoint is never unpickled
        if self.subcommand == "predict":
            config.return_predictions = False  # they are written as they come

    def _meet(self, launch: Launch, config: Namespace) -> RunDirectory:
        """The directory that the first of a launch's processes chose, and what to go on from."""
        fits, own = self.subcommand == "fit", self.run_dir
        given = Path(config.run_dir or Path("runs") / config.name / launch.name)
        ours = RUN_DIR in os.environ

        def choose(restarts: int) -> Place:
            if not fits:
                return take_folder(launch, given, restarts)
            if own is not None:
                return keep_place(launch, own.path, sys.argv[1:], config.ckpt_path)
            return take_place(launch, given, sys.argv[1:], restarts, ours)

        self.meeting = Meeting(launch)  # which keeps the store that process groups form by
        text = self._parser(self.subcommand).dump(config, skip_none=False)
        place = self.meeting.agree(text, choose)
        config.ckpt_path = place.checkpoint or config.ckpt_path
        self.began_with = place.processes if fits else None
        return RunDirectory(Path(place.run))

    def _processes(self, launch: Launch, config: dict[str, Any]) -> dict[str, Any]:
        """How many there are, which the launch alone says, and what each has of a step.

        Raises:
            ValueError: the config wants another number of them on a node.
        """
        if isinstance(config["devices"], int) and config["devices"] not in (-1, launch.per_node):
            raise ValueError(
                f"trainer.devices ({config['devices']}) must be auto, or the {launch.per_node} "
                "processes that were started on each node; leave it out, or start as many"
            )
        there_are = {"devices": launch.per_node, "num_nodes": launch.nodes}
        if self.began_with is None:
            return there_are
        return there_are | accumulated(config, self.began_with, launch.world_size)

    def before_fit(self) -> None:
        """Refuse a damaged checkpoint, or one of another network, before processes meet."""
        path = self.config[self.subcommand].ckpt_path
        if path is not None and Path(path).exists():
            require_same_network(Path(path), self.model.transformer_config)

    before_validate = before_test = before_predict = before_fit

    def after_fit(self) -> None:
        """Tell what there is now, and what one may do next."""
        if self.launch is not None and self.launch.rank == 0 and self.run_dir is not None:
            finish(self.run_dir.path)
        if self.trainer.is_global_zero and self.run_dir is not None:
            given = self.config[self.subcommand].samples.prompts
            config = self.model.transformer_config
            prompts = given or self.datamodule.prompts(
                masked=config.decoder is None, longest=config.max_seq_len // 2
            )
            print(closing_words(self.run_dir, (prompts or ["The "])[0]))

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Any:
        """Add the callbacks that no config can leave out, and leave out what Trainer's keys do."""
        switches = {Progress: "enable_progress_bar", Checkpoint: "enable_checkpointing"}
        off: set[type] = {kind for kind, key in switches.items() if config.get(key) is False}
        leaves_a_run = self.subcommand == "fit" and not config["fast_dev_run"]
        if not leaves_a_run or Checkpoint in off:  # which the card is about
            off.add(ModelCard)
        chosen = [callback for callback in callbacks if not isinstance(callback, tuple(off))]
        chosen.append(Departures())
        if leaves_a_run:
            chosen += [RandomState(), Plots(), Elastic(self.began_with)]
        if self.subcommand in ("fit", "validate") and Checkpoint not in off:
            chosen.append(Artefact())
        if leaves_a_run:
            chosen.append(Manifest())  # which says that the run has ended: last of all
        if self.subcommand == "predict":
            chosen.append(Predictions())
        given = config["plugins"] or []
        plugins = given if isinstance(given, list) else [given]
        config["plugins"] = [*plugins, CheckpointFiles()]
        if self.launch is not None:
            config["plugins"].append(self.launch.environment)
            config |= self._processes(self.launch, config)
        return super()._instantiate_trainer(config, chosen)


def ignore_what_is_harmless() -> None:
    """Warnings that say nothing to whoever runs an experiment here."""
    for harmless in HARMLESS:
        warnings.filterwarnings("ignore", message=harmless)


def closing_words(run: RunDirectory, prompt: str) -> str:
    """What a finished run wrote last, where it lies, and three commands to try next."""
    prompt = shlex.quote(prompt.strip("\n").partition("\n")[0])
    samples = run.path / "samples.md"
    written = samples.read_text(encoding="utf-8").rpartition("## ")[2] if samples.is_file() else ""
    pictures = sorted(str(path) for path in (run.path / "plots").glob("*.png"))
    lines = [
        "",
        written.strip(),
        "",
        f"run:    {run.path}",
        f"card:   {run.path / 'MODEL_CARD.md'}",
        f"plots:  {'  '.join(pictures)}",
        "",
        "next:",
        f"  gpt4o-lit generate {run.path} --prompt {prompt} --temperature 0.5",
        f"  gpt4o-lit test --resume {run.path}",
        "  gpt4o-lit fit --config encoder_tiny      # BERT's objective on the Python sources",
    ]
    return "\n".join(lines)


def _shared_run_dir(name: str, given: str | None) -> RunDirectory:
    """Every process of one launch takes the directory that its first process chose."""
    chosen = os.environ.get(RUN_DIR)
    run_dir = RunDirectory(Path(chosen)) if chosen else RunDirectory.fresh(name, given)
    os.environ[RUN_DIR] = str(run_dir.path)
    return run_dir


def main(argv: list[str]) -> int:
    """Run one verb of LightningCLI's."""
    ignore_what_is_harmless()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "litlogger" not in record.getMessage()
    )
    os.environ.setdefault("WANDB_MODE", "offline")
    set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the line under a field
    keep_freed_memory()
    args, run_dir = resolve(argv)
    try:
        ExperimentCLI(args, run_dir)
    except (ValueError, MisconfigurationException, ModuleNotFoundError) as error:
        raise ValueError(explain(str(error))) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        said = str(error).partition("\n")[0].strip(". ")
        raise ValueError(f"{said}; lower num_workers if memory was short") from error
    except SIGTERMException:
        return 128 + signal.SIGTERM
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning's way to leave
            return 128 + signal.SIGINT
        raise
    finally:
        taken = os.environ.pop(RUN_DIR, None)
        if taken is not None:
            with contextlib.suppress(OSError):  # it holds something: a run has started
                Path(taken).rmdir()
    return 0


def _checkpoint_of(run: RunDirectory | None, verb: str, resume_from: str) -> Path:
    """The checkpoint that a verb reads of a run; it is told when it is not the usual one."""
    if resume_from not in ("last", "previous"):
        raise ValueError(f"--resume_from ({resume_from}) must be last or previous")
    if run is None or (resume_from == "previous" and verb != "fit"):
        raise ValueError(f"--resume_from {resume_from} is of `fit --resume RUN`; leave it out")
    if resume_from == "last":
        return run.last_checkpoint if verb == "fit" else run.best_checkpoint
    file, damaged = newest_before(run.checkpoints / "last.ckpt")
    passed = f", passing over {', '.join(map(str, damaged))}: damaged" if damaged else ""
    print(f"going on from {file}, the one before last.ckpt{passed}", file=sys.stderr)
    return file


def resolve(argv: list[str]) -> tuple[list[str], RunDirectory | None]:
    """Turn config names into paths, and `--resume RUN` into its config and checkpoint.

    `fit` goes on from the last checkpoint in the run's own directory, or from the one before it by
    `--resume_from previous`; the other verbs read the best one and write into a new folder of it.
    `fit --from RUN` is a new run that begins with the config and the weights of another.
    """
    args: list[str] = []
    run_dir: RunDirectory | None = None
    own_dir, resume_from = False, "last"
    position = 0
    while position < len(argv):
        flag, separator, value = argv[position].partition("=")
        if flag in OURS:
            if not separator:
                position += 1
                if position == len(argv):
                    raise ValueError(f"{flag} needs a value")
                value = argv[position]
            own_dir = own_dir or flag == "--run_dir"
            if flag == "--resume":
                run_dir = RunDirectory.existing(value)
                args[1:1] = ["--config", str(run_dir.config)]
            elif flag == "--resume_from":
                resume_from = value
            elif flag == "--from":
                args[1:1] = ["--config", str(RunDirectory.existing(value).config)]
                args.append(f"{TRANSFORMER}={{encoder: null, decoder: null}}")
                args.append(f"--model.init_args.pretrained={value}")
            elif flag == "--run_dir" or "{" in value:
                args += [flag, value]
            else:
                args += ["--config" if flag == "-c" else flag, str(configs.find(value))]
        else:
            args.append(argv[position])
        position += 1
    if run_dir is not None and own_dir and argv[0] == "fit":
        raise ValueError(
            "--resume goes on in the run's own directory, so --run_dir cannot be given; leave it "
            f"out, or start a new run with `gpt4o-lit fit --config {run_dir.config}`"
        )
    if run_dir is not None or resume_from != "last":
        file = _checkpoint_of(run_dir, argv[0], resume_from)
        args[3:3] = ["--ckpt_path", str(file)]  # behind the run's config, which has one of its own
    if run_dir is not None and argv[0] != "fit":
        if not own_dir and RUN_DIR not in os.environ:
            launch = Launch.here()
            below = run_dir.path / argv[0] / launch.name if launch else run_dir.below(argv[0]).path
            args += ["--run_dir", str(below)]
        run_dir = None
    return args, run_dir
