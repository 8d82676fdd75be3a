"""The one progress bar: bytes read, speed and time left, on stderr."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def progress_bar(total: int, what: str, show: bool) -> "tqdm[Any]":
    """A bar over `total` bytes of source files; silent unless `show`."""
    # Imported here, so that the worker processes start without it.
    from tqdm import tqdm

    return tqdm(
        total=total, desc=what, unit="B", unit_scale=True, disable=not show, mininterval=0.5
    )
