"""metrics.csv: one row a step, kept when a run goes on."""

import csv
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from gpt4o_lit.run_directory import read_metrics


class MetricsLog(Logger):
    """Writes `metrics.csv` into the run's directory.

    Unlike CSVLogger it merges what is logged at one step into one row, and a run that goes on keeps
    the rows before the step from which it goes on. While the disk is full, rows wait in memory.

    Args:
        save_dir: Set by the run directory.
    """

    def __init__(self, save_dir: str = ".") -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._rows: dict[int, dict[str, Any]] | None = None
        self._saved_rows, self._waits = 0, False

    @rank_zero_only
    def go_on_from(self, step: int) -> None:
        """Keep the rows of the steps before; those of lost steps come again."""
        self._rows = self._before(step)

    @property
    def name(self) -> str:
        """No name of its own: the run's directory has one."""
        return ""

    @property
    def version(self) -> str:
        """No version of its own."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's directory."""
        return str(self.path.parent)

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing: config.yaml has them all."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Put the metrics into the row of their step; 20 rows at a time are written."""
        step = step or 0
        if self._rows is None:
            self._rows = self._before(step)
        self._rows.setdefault(step, {"step": step}).update(metrics)
        if len(self._rows) - self._saved_rows >= 20:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write the file; what cannot be written is kept, and tried again with the next row."""
        try:
            self._write()
            self._waits = False
        except OSError as error:
            if not self._waits:
                rank_zero_warn(f"{self.path} was not written ({error}); its rows wait in memory")
            self._waits = True

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left, also when the run failed.

        Raises:
            OSError: it could not be written.
        """
        self._write()

    def _before(self, step: int) -> dict[int, dict[str, Any]]:
        return {row["step"]: row for row in read_metrics(self.path) if row["step"] < step}

    def _write(self) -> None:
        """Write the whole file beside the old one, then put it in its place."""
        if not self._rows:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        columns = sorted({key for row in self._rows.values() for key in row} - {"step", "epoch"})
        part = self.path.with_suffix(".csv.part")
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["step", "epoch", *columns])
            writer.writeheader()
            writer.writerows(self._rows.values())
        os.replace(part, self.path)
        self._saved_rows = len(self._rows)
