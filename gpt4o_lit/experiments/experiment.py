"""An experiment that is looked at and not run."""

from typing import Any, ClassVar

from jsonargparse import Namespace, set_parsing_settings
from lightning import Callback
from lightning.fabric.utilities.exceptions import MisconfigurationException

from gpt4o_lit.cli import ExperimentCLI, ignore_what_is_harmless, resolve
from gpt4o_lit.parse_errors import explain


class Experiment(ExperimentCLI):
    """An experiment that is read as `fit` reads it, but not run: its task, its data, its settings.

    Nothing is written and no Trainer made, so that a run for other devices can be looked at here.
    """

    config_dump: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # Lightning's is for checkpoints

    def before_instantiate_classes(self) -> None:
        """There is no run that would need a directory."""

    def instantiate_classes(self) -> None:
        """Task and data alone."""
        self.settings = self.config[self.subcommand]
        classes = Namespace(model=self.settings.model, data=self.settings.data)
        built = self._parser(self.subcommand).instantiate_classes(classes)
        self.model, self.datamodule = built.model, built.data

    def callbacks(self) -> list[Callback]:
        """The callbacks of its Trainer, newly built."""
        given = Namespace(trainer=Namespace(callbacks=self.settings.trainer.callbacks))
        built = self._parser(self.subcommand).instantiate_classes(given)
        return list(built.trainer.callbacks or [])

    def dumped(self) -> str:
        """The whole config, as YAML that `fit --config` reads as the same experiment."""
        return str(self._parser(self.subcommand).dump(self.settings, skip_none=False))

    def _set_seed(self) -> None:
        """Nothing is drawn."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Leave it at that."""


def read_experiment(flags: list[str]) -> Experiment:
    """The experiment of these flags of `fit`: --config, --resume, --from and keys.

    Raises:
        ValueError: `fit` would not read them.
    """
    ignore_what_is_harmless()
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    try:
        return Experiment(resolve(["fit", *flags])[0])
    except (ValueError, MisconfigurationException, ModuleNotFoundError) as error:
        raise ValueError(explain(str(error))) from error
