"""Fields of a Hugging Face config.json, read with an error that names file, field and value."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Field:
    """One field of theirs and the places of ours that it fills; the first is written back."""

    theirs: str
    """Name in config.json."""
    ours: tuple[str, ...]
    """Paths in TransformerConfig, such as decoder.attention.num_heads."""
    kind: type
    """int, float, bool or str."""
    default: Any = ...
    """Value where config.json lacks the field; without it the field is required."""
    words: dict[str, str] | None = None
    """Their word to ours; of two words for one thing the first is written."""
    null: bool = False
    """Whether null is a value of its own. It always is where it is the default."""

    def write(self, flat: dict[str, Any]) -> Any:
        """Their value; a word that they lack becomes their first, which reading back reveals."""
        value = flat[self.ours[0]]
        if self.words is None:
            return value
        first = next(iter(self.words))
        return next((theirs for theirs, ours in self.words.items() if ours == value), first)


class Fields:
    """The values of one config.json."""

    def __init__(self, values: dict[str, Any], path: Path) -> None:
        self.values = values
        self.path = path

    def error(self, name: str, value: Any, rule: str, mend: str) -> ValueError:
        """One line: file, field, value, rule, mend."""
        return ValueError(f"{self.path}: {name} ({value!r}) {rule}; {mend}")

    def take(self, name: str, kind: type, default: Any = ..., *, null: bool = False) -> Any:
        """A value of the kind, or the default where it is absent; null only where allowed."""
        if name not in self.values and default is ...:
            raise ValueError(f"{self.path}: {name} is missing and has no default; add it")
        value = self.values.get(name, default)
        if value is None and (null or default is None):
            return None
        if value is None:
            raise self.error(name, value, "is required", f"give it as {kind.__name__}")
        return self.check(name, value, kind)

    def check(self, name: str, value: Any, kind: type) -> Any:
        """The value as the kind; whole numbers pass as float, nothing else is converted."""
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(name, value, f"must be {kind.__name__}", "correct it")
        return value

    def word(self, name: str, words: dict[str, str], default: Any = ...) -> str:
        """Our word for theirs."""
        word = self.take(name, str, default)
        if word not in words:
            raise self.error(name, word, "is unsupported", f"supported: {', '.join(words)}")
        return words[word]

    def must_be(self, name: str, expected: Any) -> None:
        """Refuse a field that changes what is computed in a way that we do not have."""
        if name in self.values and self.values[name] != expected:
            raise self.error(
                name,
                self.values[name],
                f"is unsupported, only {expected!r} is",
                "use another model",
            )

    def read(self, field: Field) -> dict[str, Any]:
        """Our paths and the value for them."""
        if field.words is not None:
            value: Any = self.word(field.theirs, field.words, field.default)
        else:
            value = self.take(field.theirs, field.kind, field.default, null=field.null)
        return dict.fromkeys(field.ours, value)
