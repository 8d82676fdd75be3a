"""What Weights & Biases is told of a run, read back from its file by its own messages."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from gpt4o_lit.__main__ import main
from tests.end_to_end.conftest import write_config

BLOCK, HEAD = 32768, 7
PICTURES = ("explain/attention_decoder_layer_1", "explain/rollout_decoder", "sparsity/density")


def records(file: Path) -> Iterator[Any]:
    """The messages of an offline file: a log of blocks, in which long ones are cut (LevelDB's)."""
    data, place, parts = file.read_bytes(), HEAD, b""
    while place + HEAD <= len(data):
        if BLOCK - place % BLOCK < HEAD:  # no head fits into the rest of a block
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEAD])
        parts += data[place + HEAD : place + HEAD + length]
        place += HEAD + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def told(run: Path) -> list[Any]:
    """All messages of a run, once those of each time that it ran have ended."""
    limit = time.monotonic() + 30
    while True:
        files = sorted(run.glob("wandb/offline-run-*/*.wandb"))
        found = [list(records(file)) for file in files]
        if found and all(each and any(r.HasField("exit") for r in each) for each in found):
            return [record for each in found for record in each]
        assert time.monotonic() < limit, files
        time.sleep(0.1)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_RUN_GROUP", "a_question")
    return write_config(tmp_path)


def test_a_run_is_one_of_theirs_with_curves_samples_and_what_is_left(config: Path) -> None:
    overlays = ("wandb", "explain", "prune_magnitude", "sparsity_map")
    flags = [word for name in overlays for word in ("--config", f"with/{name}")]
    given = ("--config", str(config), "--run_dir", "parent", *flags, "--model_card.measure=false")
    assert main(["fit", *given, "--trainer.max_steps=3"]) == 0
    assert main(["fit", "--resume", "parent", "--trainer.max_steps=6"]) == 0
    run = Path("parent")
    found = told(run)
    (id,) = {record.run.run_id for record in found if record.HasField("run")}
    assert id == (run / "wandb_id").read_text()
    assert {r.run.run_group for r in found if r.HasField("run")} == {"a_question"}
    settings = {
        update.key: json.loads(update.value_json)
        for record in found if record.HasField("config") for update in record.config.update
    }  # fmt: skip
    assert settings["model"]["init_args"]["transformer"]["decoder"]["dim"] == 32
    rows = [
        {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
        for record in found if record.HasField("history")
    ]  # fmt: skip
    losses = [row["perf/tokens"] for row in rows if "val/loss" in row]  # curves by tokens
    assert len(losses) == 2  # after 3 steps and after 6
    assert any(key.startswith("samples/") for row in rows for key in row)
    for name in PICTURES:
        files = [f for row in rows for f in json.loads(row.get(f"{name}/filenames", "[]"))]
        assert len(files) == 2, name  # after 3 steps and after 6
        assert all(list(run.glob(f"wandb/*/files/{file}")) for file in files)
    zeros = [row["sparsity/decoder.blocks.0.attention.output"] for row in rows
             if "sparsity/decoder.blocks.0.attention.output" in row]  # fmt: skip
    assert len(zeros) == 2
    sizes = [u.value_json for r in found if r.HasField("summary") for u in r.summary.update
             if "deployed/bytes" in ("/".join(u.nested_key), u.key)]  # fmt: skip
    packed = (run / "compressed" / "model.safetensors").stat().st_size
    assert int(sizes[-1]) == packed
    artifacts = {r.artifact.name for r in found if r.HasField("artifact")}
    assert f"model-{id}" in artifacts


def test_what_came_of_a_run_names_it(config: Path) -> None:
    flags = ("--config", "with/wandb", "--model_card.measure=false", "--trainer.max_steps=3")
    assert main(["fit", "--config", str(config), "--run_dir", "parent", *flags]) == 0
    prune = ("--config", "with/prune_magnitude", "--trainer.max_steps=3")  # it shows the child too
    assert main(["fit", "--from", "parent", "--run_dir", "child", *prune]) == 0
    parent, child = ((Path(run) / "wandb_id").read_text() for run in ("parent", "child"))
    artifacts = {
        r.artifact.name: json.loads(r.artifact.metadata)
        for r in told(Path("child")) if r.HasField("artifact") and r.artifact.metadata
    }  # fmt: skip
    assert artifacts[f"model-{child}"]["parent"] == f"model-{parent}"
    assert artifacts[f"compressed-{child}"]["parent"] == f"model-{child}"
