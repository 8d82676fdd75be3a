"""The wheel, installed elsewhere, is the whole package."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent


def listed_packages() -> set[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return set(settings["tool"]["setuptools"]["packages"])


def test_every_folder_with_python_is_listed() -> None:
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "gpt4o_lit").rglob("__init__.py")
    }
    assert folders | {"gpt4o_lit.callbacks"} == listed_packages()


def test_what_is_pinned_installs_on_every_python_3_11() -> None:
    """Debian 12 has 3.11.2; pip refuses what asks for a later one."""
    asked = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        with suppress(PackageNotFoundError):  # what no test needs is not installed
            asked[line] = metadata(line.partition("==")[0]).get("Requires-Python")
    assert len(asked) > 100
    later = {
        line: rule
        for line, rule in asked.items()
        if not SpecifierSet(rule or "").contains("3.11.0")
    }
    assert not later


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    # Built from a copy: what an earlier build left would get into it, and two at once would clash.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("gpt4o_lit", "callbacks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(source)],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return next(out.glob("*.whl"))


def test_wheel_has_callbacks_and_configs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "gpt4o_lit/callbacks/checkpoint.py" in names
    assert "gpt4o_lit/configs/launch/slurm.sbatch" in names
    for config in (ROOT / "gpt4o_lit" / "configs").rglob("*.yaml"):
        assert config.relative_to(ROOT).as_posix() in names


def test_wheel_installed_elsewhere_trains(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    text = "".join(f"line {number} of the text\n" for number in range(4000))
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = (
        "import sys, gpt4o_lit, gpt4o_lit.callbacks; from gpt4o_lit.__main__ import main;"
        "print(gpt4o_lit.__file__, gpt4o_lit.callbacks.__file__); sys.exit(main(sys.argv[1:]))"
    )
    flags = [
        "--data.init_args.corpus.sources=[text.txt]",
        "--data.init_args.corpus.documents=line",
        "--data.init_args.tokenizer=gpt4o_lit.tokenizer.Bytes",
        "--trainer.max_steps=2",
    ]
    done = subprocess.run(
        [sys.executable, "-c", command, "fit", "--config", "quickstart", *flags],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    places = done.stdout.splitlines()[0].split()
    assert all(place.startswith(str(tmp_path / "site")) for place in places)
    assert list(tmp_path.glob("runs/quickstart/*/MODEL_CARD.md"))
