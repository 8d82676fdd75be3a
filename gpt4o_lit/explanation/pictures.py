"""Pictures of an explanation, with fonts that have the signs of its text."""

import importlib.util
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import font_manager
from matplotlib import pyplot as plt
from matplotlib.ft2font import FT2Font
from torch import Tensor

from gpt4o_lit.explanation.explain import Explanation

COLORS = "Blues"
COLUMNS = 4
INCH_PER_TOKEN = 0.2


def draw(told: Explanation, folder: Path) -> list[Path]:
    """A PNG per layer and kind of attention, of the rollouts, the lens and the attribution."""
    folder.mkdir(parents=True, exist_ok=True)
    with fonts([*told.tokens, *told.source, told.target, *_pieces(told)]) as shown:
        paths = []
        for name, weights_LNTS in told.record.attention.items():
            rows, columns = told.axes(name)
            for layer, weights_NTS in enumerate(weights_LNTS, 1):
                path = folder / f"attention_{name}_layer_{layer}.png"
                titles = [f"head {head}" for head in range(1, len(weights_NTS) + 1)]
                _maps(path, f"{name}, layer {layer}", weights_NTS, titles, shown(rows),
                      shown(columns))  # fmt: skip
                paths.append(path)
        if "cross" in told.record.attention:
            rows, columns = told.axes("cross")
            mean_1TS = told.record.attention["cross"].mean((0, 1))[None]
            path = folder / "alignment.png"
            _maps(path, "alignment: cross-attention, mean of layers and heads", mean_1TS, [""],
                  shown(rows), shown(columns))  # fmt: skip
            paths.append(path)
        for name, mixed_TT in told.rollouts.items():
            rows, columns = told.axes(name)
            path = folder / f"rollout_{name}.png"
            _maps(path, f"rollout, {name}", mixed_TT[None], [""], shown(rows), shown(columns))
            paths.append(path)
        paths.append(_lens(told, folder / "lens.png", shown))
        if told.attribution is not None:
            paths.append(_attribution(told, folder / "attribution.png", shown))
    return paths


def _maps(
    path: Path,
    title: str,
    weights_NTS: Tensor,
    titles: Sequence[str],
    rows: Sequence[str],
    columns: Sequence[str],
) -> None:
    """Heat maps side by side: queries downwards, keys to the right."""
    across = min(COLUMNS, len(titles))
    down = -(-len(titles) // across)
    size = (
        across * (1.2 + INCH_PER_TOKEN * len(columns)),
        down * (1.2 + INCH_PER_TOKEN * len(rows)) + 0.4,
    )
    figure, grid = plt.subplots(down, across, figsize=size, layout="constrained", squeeze=False)
    figure.suptitle(title)
    for number, axes in enumerate(grid.flat):
        if number >= len(titles):
            axes.axis("off")
            continue
        axes.imshow(weights_NTS[number].cpu(), cmap=COLORS, vmin=0, vmax=1, aspect="equal")
        axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
        axes.set_yticks(range(len(rows)), rows, fontsize=8)
        axes.set_title(titles[number], fontsize=9)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _lens(told: Explanation, path: Path, shown: Any) -> Path:
    """The likeliest piece by layer and token; the darker, the surer."""
    best = [[guesses[0] for guesses in layer] for layer in told.lens]
    size = (1.5 + 0.75 * len(best[0]), 1.5 + 0.3 * len(best))
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    sure = [[guess.probability for guess in layer] for layer in best]
    axes.imshow(sure, cmap=COLORS, vmin=0, vmax=1, aspect="auto", origin="lower")
    for layer, guesses in enumerate(best):
        for place, (guess, text) in enumerate(
            zip(guesses, shown([guess.piece for guess in guesses]), strict=True)
        ):
            color = "white" if guess.probability > 0.6 else "black"
            axes.text(place, layer, text, ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(len(best[0])), shown(told.tokens), rotation=90, fontsize=8)
    axes.set_yticks(range(len(best)), ["embedding", *range(1, len(best))], fontsize=8)
    axes.set(ylabel="layer", title="logit lens: what each layer would say")
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def _attribution(told: Explanation, path: Path, shown: Any) -> Path:
    """A bar per token: blue speaks for the answer, orange against it."""
    assert told.attribution is not None
    values = told.attribution.tokens_T.tolist()
    names = list(told.tokens)
    if told.attribution.source_S is not None:
        values = told.attribution.source_S.tolist() + values
        names = [*told.source, *told.tokens]
    figure, axes = plt.subplots(
        figsize=(max(5.0, 1.5 + 0.3 * len(names)), 3.2), layout="constrained"
    )
    colors = ["#0072b2" if value >= 0 else "#d55e00" for value in values]
    axes.bar(range(len(values)), values, color=colors)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(names)), shown(names), rotation=90, fontsize=8)
    (target,) = shown([told.target])
    axes.set(ylabel="nats", title=f"integrated gradients: what speaks for {target}")
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def _pieces(told: Explanation) -> Iterator[str]:
    return (guesses[0].piece for layer in told.lens for guesses in layer)


@contextmanager
def fonts(texts: Iterable[str]) -> Iterator[Any]:
    """Draw with fonts that have every sign; gives what turns texts into what they can show.

    Warns of signs that no font here has; they are shown by their numbers.
    """
    needed = {sign for text in texts for sign in text if ord(sign) >= 32}
    families, missing = _families(needed)
    if missing:
        example = "".join(sorted(missing)[:8])
        warnings.warn(
            f"no font here has {example}, which pictures show by number; install a font that has "
            "them, such as Noto Sans CJK, or pip install 'gpt4o-lit[explain]'",
            stacklevel=3,
        )

    def shown(names: Sequence[str]) -> list[str]:
        return [
            "".join(f"U+{ord(sign):04X}" if sign in missing else sign for sign in name).replace(
                "$", r"\$"
            )
            for name in names
        ]

    with matplotlib.rc_context({"font.family": families}):
        yield shown


def _families(needed: set[str]) -> tuple[list[str], set[str]]:
    """Families that together have the signs, the usual one first, and the signs that none has."""
    usual = matplotlib.rcParams["font.family"]
    chosen = list(usual)
    missing = needed - _signs(font_manager.findfont(font_manager.FontProperties(family=usual)))
    if missing:
        _add_bundled()
        best = {
            font.name: font.fname
            for font in font_manager.fontManager.ttflist
            if font.style == "normal"
            and 400 <= _weight(font.weight) <= 500
            and not font.name.startswith("Last Resort")  # it has every sign, as an empty box
        }
        for name, path in sorted(best.items()):
            if not missing:
                break
            if found := missing & _signs(path):
                chosen.append(name)
                missing -= found
    return chosen, missing


def _weight(weight: int | str) -> int:
    return weight if isinstance(weight, int) else font_manager.weight_dict.get(weight, 400)


def _signs(path: str) -> set[str]:
    return {chr(code) for code in FT2Font(path).get_charmap()}


def _add_bundled() -> None:
    """Fonts that the package mplfonts brings, where it is installed."""
    spec = importlib.util.find_spec("mplfonts")
    if spec is None or spec.origin is None:
        return
    known = {font.fname for font in font_manager.fontManager.ttflist}
    font = Path(spec.origin).parent / "fonts" / "NotoSansCJKsc-Regular.otf"
    if font.exists() and str(font) not in known:
        font_manager.fontManager.addfont(font)
