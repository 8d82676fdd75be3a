"""Where a network is sparse: the numbers of its weights, and a picture for each logger."""

from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from gpt4o_lit.callbacks.sparsity_map import SparsityMap, draw
from tests.end_to_end.conftest import weights, write_config

PRUNE = {"final": 0.5, "begin": 1, "end": 2, "every": 1}


def test_a_run_logs_the_zeros_of_each_matrix_and_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    overlays = ("with/prune_magnitude", "with/sparsity_map", "with/tensorboard")
    flags = [word for overlay in overlays for word in ("--config", overlay)]
    given = ["--config", str(write_config(tmp_path)), *flags, "--run_dir", "run"]
    assert main(["fit", *given, "--samples.enabled=false"]) == 0
    last = read_metrics(Path("run/metrics.csv"))[-1]
    logged = {k.removeprefix("sparsity/"): v for k, v in last.items() if k.startswith("sparsity/")}
    saved = weights(Path("run"))
    assert "decoder.blocks.1.attention.output" in logged
    for name, sparsity in logged.items():
        zeros = (saved[f"transformer.{name}.weight"] == 0).float().mean()
        assert sparsity == pytest.approx(float(zeros), abs=1e-6)
    assert sum(logged.values()) > 1  # of eight matrices half is pruned
    assert {path.parent.name for path in Path("run").glob("sparsity/*/density.png")} == {
        "step_3", "step_6"
    }  # fmt: skip
    events = EventAccumulator("run/tensorboard", size_guidance={"images": 0}).Reload()
    assert [image.step for image in events.Images("sparsity/density")] == [3, 6]
    assert "sparsity/decoder.blocks.0.attention.output" in events.Tags()["scalars"]


def test_the_picture_is_darkest_where_all_is_left(tmp_path: Path) -> None:
    draw({"encoder.blocks.0.a": 1.0, "encoder.blocks.1.a": 0.0, "tokens": 0.5}, tmp_path / "x.png")
    pixels = torch.from_numpy(imread(tmp_path / "x.png"))[..., :3].mean(-1)
    left = pixels[:, : pixels.shape[1] // 2]  # the column of `a`, and names
    assert left.min() < 0.35


def test_what_matches_nothing_or_never_is_refused() -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        SparsityMap(every_n_validations=0)
