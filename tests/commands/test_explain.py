"""`gpt4o-lit explain`: a page that needs nothing else, and pictures whose signs can be read."""

import json
import re
from pathlib import Path

import pytest
from matplotlib import font_manager

from gpt4o_lit.__main__ import main
from gpt4o_lit.explanation import pictures
from tests.commands.conftest import MakeRun


@pytest.mark.parametrize("kind", ["decoder", "encoder", "both"])
def test_page_and_pictures_are_written(kind: str, make_run: MakeRun, tmp_path: Path) -> None:
    pytest.importorskip("captum", reason="the extra `explain` is not installed")
    run, _ = make_run(kind)
    place = tmp_path / "told"
    flags = ["--text", "a </script> b", "--num_steps", "4", "--output", str(place)]
    assert main(["explain", str(run), *flags]) == 0
    stacks = ["encoder", "decoder", "cross"] if kind == "both" else [kind]
    names = {f"attention_{name}_layer_{layer}.png" for name in stacks for layer in (1, 2)}
    names |= {"lens.png", "attribution.png"}
    names |= {f"rollout_{name}.png" for name in stacks if name != "cross"}
    names |= {"alignment.png"} if kind == "both" else set()
    assert {path.name for path in place.glob("*.png")} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in place.glob("*.png"))
    page = (place / "explain.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=|https?://|@import", page)
    (data,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page)
    told = json.loads(data)
    assert told["attention"].keys() == set(stacks)
    read = told["source"] if kind == "both" else told["tokens"]
    assert "".join(read) == "a␣</script>␣b"


def test_a_text_is_explained_beside_its_run(make_run: MakeRun) -> None:
    run, _ = make_run()
    assert main(["explain", str(run), "--text", "ab", "--num_steps", "0", "--no-png"]) == 0
    assert [path.name for path in run.glob("explain/*/*")] == ["explain.html"]


def test_signs_without_a_font_are_told_and_shown_by_number(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = [font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", usual)
    monkeypatch.setattr(pictures, "_add_bundled", lambda: None)
    run, _ = make_run()
    assert main(["explain", str(run), "--text", "我爱", "--num_steps", "0"]) == 0
    error = capsys.readouterr().err
    assert "no font here has 我爱" in error
    with pytest.warns(UserWarning, match="no font"), pictures.fonts(["我"]) as shown:
        assert shown(["我a$"]) == [r"U+6211a\$"]


def test_a_font_that_has_the_signs_is_chosen() -> None:
    families, missing = pictures._families(set("我爱吃苹果"))
    assert not missing
    fonts = [font_manager.findfont(name) for name in families[1:]]
    assert set("我爱吃苹果") <= set().union(*(pictures._signs(font) for font in fonts))
    assert not any("Last Resort" in name for name in families)
