"""A profiled run learns the same, and leaves a trace that opens and a table of operators."""

import gzip
import json
from pathlib import Path

import pytest

from gpt4o_lit.callbacks import Profile
from tests.end_to_end.conftest import weights
from tests.end_to_end.test_fit import assert_equal, fit


def test_a_trace_is_written_and_training_is_the_same(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = fit(config, "plain", "--trainer.max_steps", "3")
    flags = ("--trainer.callbacks.init_args.skip_batches", "0")
    flags += ("--trainer.callbacks.init_args.warmup_batches", "1")
    flags += ("--trainer.callbacks.init_args.active_batches", "1", "--trainer.max_steps", "3")
    flags += ("--trainer.callbacks.init_args.rows", "1000")  # all: which are slow is chance
    run = fit(config, "run", "--config", "with/profile", *flags)
    assert_equal(weights(run), weights(plain), atol=0)
    trace, table = (run / "profile" / f"rank_0_step_2.{ending}" for ending in ("json.gz", "txt"))
    with gzip.open(trace, "rt", encoding="utf-8") as lines:
        names = [event.get("name", "") for event in json.load(lines)["traceEvents"]]
    assert names.count("aten::_fused_adamw_") == 2  # one step of both groups of weights
    assert "aten::_fused_adamw_" in table.read_text(encoding="utf-8")
    assert f"profile: {trace} (open it at https://ui.perfetto.dev)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "least"), [({"active_batches": 0}, 1), ({"skip_batches": -1}, 0)]
)
def test_a_setting_that_records_nothing_is_refused(wrong: dict[str, int], least: int) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} .* must be at least {least}"):
        Profile(**wrong)
