"""What making a network smaller was worth, measured when a run ends."""

from itertools import islice
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer

from gpt4o_lit.callbacks.artefact import FOLDER
from gpt4o_lit.evaluation.ledger import Plan, measure
from gpt4o_lit.evaluation.ledger_views import table, write
from gpt4o_lit.interop.compressed import is_compressed
from gpt4o_lit.run_directory import RunDirectory

HEADING = "## What was it worth?"


class EfficiencyReport(Callback):
    """Measures `RUN/compressed` beside its dense parent, as `gpt4o-lit ledger` does.

    Writes `RUN/efficiency/` (ledger.json, ledger.txt, pareto.png) and the table into MODEL_CARD.md.

    Args:
        parent: The directory of the run to compare with. Default: the run that the task's
            `pretrained` names.
        compiled: Measure compiled steps too, which takes a minute more.
        rounds: Turns of each network; medians count.
        max_texts: Documents of the validation text that quality is measured on.
        price_per_hour: What the machine costs; gives a price per million tokens.
        enabled: False measures nothing.
    """

    def __init__(
        self,
        parent: str | None = None,
        compiled: bool = False,
        rounds: int = 5,
        max_texts: int = 200,
        price_per_hour: float | None = None,
        enabled: bool = True,
    ) -> None:
        self.plan = Plan(compiled=compiled, rounds=rounds, price_per_hour=price_per_hour)
        self.parent, self.max_texts, self.enabled = parent, max_texts, enabled

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Find the parent before training."""
        if not self.enabled:
            return
        path = self.parent
        if path is None and pl_module.pretrained is not None:
            path = str(pl_module.pretrained.path.parent.parent)
        if path is None:
            raise ValueError(
                "EfficiencyReport has no parent to compare with; set parent to the directory of a "
                "run, or model.init_args.pretrained"
            )
        self._parent = RunDirectory.existing(path)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """When everything else has been written."""
        run = RunDirectory(Path(trainer.default_root_dir))
        finished = self.enabled and stage == "fit" and trainer.is_global_zero
        child = run.path / FOLDER
        if not finished or trainer.interrupted or not is_compressed(child):
            return
        texts = list(islice(pl_module.datamodule.corpus.texts("valid"), self.max_texts))
        entries = measure([self._parent.path, child], self.plan, texts)
        out = run.path / "efficiency"
        write(out, entries, self.plan, {"texts": len(texts)})
        print(f"\n{table(entries)}\n\nefficiency: {out}")
        _add_to_card(run.path / "MODEL_CARD.md", table(entries))


def _add_to_card(card: Path, text: str) -> None:
    before = card.read_text(encoding="utf-8").partition(HEADING)[0] if card.exists() else ""
    card.write_text(f"{before.rstrip()}\n\n{HEADING}\n\n```\n{text}\n```\n", encoding="utf-8")
