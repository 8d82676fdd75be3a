"""One page of HTML that needs nothing else, with heat maps to look into."""

import base64
import json
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt4o_lit.explanation.explain import Explanation

ALIGNMENT = "Alignment"
WORDS = {
    ALIGNMENT: "Which token of the source the decoder looks at: the mean of layers and heads.",
    "rollout": "How much of a token's final state comes from each token, residual sums included "
    "(attention rollout).",
}


def write_page(told: Explanation, path: Path) -> None:
    """Write the page; the signs are drawn by the browser's own fonts."""
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    # In JSON a slash may be escaped: so no text can end the script that it stands in.
    data = json.dumps(_data(told), ensure_ascii=False).replace("</", "<\\/")
    path.write_text(template.replace("DATA", data, 1), encoding="utf-8")


def _data(told: Explanation) -> dict[str, Any]:
    attention, maps = told.record.attention, {}
    if "cross" in attention:
        maps[ALIGNMENT] = _block(told, "cross", attention["cross"].mean((0, 1))[None, None])
        maps[ALIGNMENT]["words"] = WORDS[ALIGNMENT]
    for name, mixed_TT in told.rollouts.items():
        title = f"Rollout: {name}"
        maps[title] = _block(told, name, mixed_TT[None, None]) | {"words": WORDS["rollout"]}
    return {
        "tokens": told.tokens,
        "source": told.source,
        "attention": {name: _block(told, name, weights) for name, weights in attention.items()},
        "maps": maps,
        "lens": [
            [[(guess.piece, guess.probability) for guess in guesses] for guesses in layer]
            for layer in told.lens
        ],
        "attribution": _attribution(told),
    }


def _block(told: Explanation, name: str, weights_LNTS: Tensor) -> dict[str, Any]:
    """Maps as bytes, 255 being one."""
    rows, columns = told.axes(name)
    layers, heads = weights_LNTS.shape[:2]
    told_bytes = (weights_LNTS * 255).round().byte().cpu().numpy().tobytes()
    return {
        "rows": rows,
        "columns": columns,
        "layers": layers,
        "heads": heads,
        "weights": base64.b64encode(told_bytes).decode(),
    }


def _attribution(told: Explanation) -> dict[str, Any] | None:
    spoken = told.attribution
    if spoken is None:
        return None
    tokens = spoken.tokens_T.tolist()
    source = None if spoken.source_S is None else spoken.source_S.tolist()
    everything = tokens + (source or [])
    return {
        "target": told.target,
        "tokens": tokens,
        "source": source,
        "all": everything,
        "sum": sum(everything),
        "difference": spoken.difference,
    }
