"""Figures in columns, as a person reads them in a terminal."""

from collections.abc import Sequence


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> str:
    """Columns as wide as they need, to the right but for the first and those titled as `left`."""
    lines = [list(titles), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 or titles[column] in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def duration(seconds: float | None) -> str:
    """12 s, 3.4 min, 2.5 h, 4.1 d."""
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:.0f} s"
    for unit, length, most in (("min", 60, 100), ("h", 3600, 48)):
        if seconds < most * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 86400:.1f} d"


def number(value: float | None, form: str = ",.0f") -> str:
    """A dash for what is not known."""
    return "-" if value is None else f"{value:{form}}"


def figure(value: object) -> str:
    """A metric's value, in four digits behind its first ones."""
    return f"{value:.4f}" if isinstance(value, float) else "-" if value is None else str(value)
