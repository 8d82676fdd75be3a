"""A document of a few kinds of blocks: one page of HTML that needs nothing else, or Markdown."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
  max-width: 75rem; padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #bbb; }
p, li { max-width: 75ch; }
ul { padding-left: 1.2rem; }
.warn { border: 2px solid #d55e00; border-radius: 4px; padding: .25rem 1rem; margin: 1rem 0; }
table { border-collapse: collapse; margin: .5rem 0; font-size: .875rem; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left;
  vertical-align: top; }
th { border-bottom: 2px solid #1a1a1a; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.long { overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: 1rem; }
figure { margin: 0; }
figure img { width: 100%; max-width: 40rem; height: auto; }
figcaption { font-size: .875rem; color: #444; max-width: 75ch; }
@media screen and (max-width: 700px) {
  table, tbody, tr, td { display: block; }
  thead { display: none; }
  tr { border: 1px solid #bbb; border-radius: 4px; margin: .5rem 0; padding: .25rem .5rem; }
  td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .15rem 0;
    text-align: right; white-space: normal; overflow-wrap: anywhere; }
  td:first-child { font-weight: 600; }
  td::before { content: attr(data-name); color: #444; font-weight: 400; text-align: left;
    flex-shrink: 0; max-width: 45%; }
  td:empty { display: none; }
}
@media print {
  @page { margin: 15mm; }
  body { font-size: 10pt; max-width: none; padding: 0; }
  table { font-size: 8pt; }
  th, td { padding: .15rem .3rem; }
  .number { white-space: normal; }
  tr, figure, .warn { break-inside: avoid; }
  h2 { break-after: avoid; }
  .figures { grid-template-columns: 1fr 1fr; }
}
"""


@dataclass(frozen=True)
class Heading:
    """A part of the document begins."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Points:
    """A list of sentences, in a frame where they are warnings."""

    sentences: Sequence[str]
    warn: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under their columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[str] = ()
    """Columns that stand to the right and are never broken."""
    long: Sequence[str] = ()
    """Columns of words that may be broken anywhere, as keys and paths."""


@dataclass(frozen=True)
class Figure:
    """A picture, as SVG and PNG, with what it shows in words."""

    name: str
    caption: str
    svg: bytes
    png: bytes


Block = Heading | Text | Points | Table | Figure


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """The whole page: pictures and style are in it, and no script."""
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
        f"<h1>{escape(title)}</h1>",
    ]
    for place, block in enumerate(blocks):
        if isinstance(block, Figure):
            before, after = blocks[max(place - 1, 0)], blocks[place + 1 : place + 2]
            opens = "" if place and isinstance(before, Figure) else '<div class="figures">\n'
            closes = "" if after and isinstance(after[0], Figure) else "\n</div>"
            parts.append(f"{opens}{_html(block)}{closes}")
        else:
            parts.append(_html(block))
    return "\n".join([*parts, "</body>\n</html>\n"])


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The same, with pictures as `plots/NAME.png` beside it."""
    return "\n\n".join([f"# {title}", *(_markdown(block) for block in blocks)]) + "\n"


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h2>{escape(block.text)}</h2>"
    if isinstance(block, Text):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Points):
        items = "\n".join(f"<li>{escape(sentence)}</li>" for sentence in block.sentences)
        points = f"<ul>\n{items}\n</ul>"
        return f'<div class="warn" role="note">\n{points}\n</div>' if block.warn else points
    if isinstance(block, Figure):
        # As a picture of its own each keeps its ids to itself.
        data = base64.b64encode(block.svg).decode("ascii")
        alt = escape(block.caption, quote=True)
        image = f'<img src="data:image/svg+xml;base64,{data}" alt="{alt}">'
        return f"<figure>\n{image}\n<figcaption>{escape(block.caption)}</figcaption>\n</figure>"
    kinds = [_kind(block, name) for name in block.columns]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for name, kind in zip(block.columns, kinds, strict=True)
    )
    rows = "\n".join(
        "<tr>"
        + "".join(
            f'<td{kind} data-name="{escape(name, quote=True)}">{escape(cell)}</td>'
            for name, kind, cell in zip(block.columns, kinds, row, strict=True)
        )
        + "</tr>"
        for row in block.rows
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def _kind(table: Table, column: str) -> str:
    if column in table.numbers:
        return ' class="number"'
    return ' class="long"' if column in table.long else ""


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"## {block.text}"
    if isinstance(block, Text):
        return block.text
    if isinstance(block, Points):
        mark = "> - " if block.warn else "- "
        return "\n".join(f"{mark}{sentence}" for sentence in block.sentences)
    if isinstance(block, Figure):
        return f"![{block.caption}](plots/{block.name}.png)\n\n{block.caption}"
    rule = ["---:" if name in block.numbers else "---" for name in block.columns]
    rows = [block.columns, rule, *([_cell(c) for c in row] for row in block.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(text: str) -> str:
    """A bar would end the cell."""
    return text.replace("|", "\\|")
