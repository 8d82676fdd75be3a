"""What an objective is: from packed tokens to what the network reads and what it must say.

Shapes: B rows, T tokens (T1 = T + 1: a window and the token after it), S source tokens,
V vocabulary.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from gpt4o_lit.objectives.draws import Draws

Needs = Literal["decoder", "encoder", "encoder_decoder"]

IGNORED = -100
"""The target of a position that is asked nothing."""

PADDING = -1
"""The document of a position that nobody sees."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What an objective must know of the tokenizer."""

    size: int
    """Pieces in all."""
    pad_id: int | None = None
    """Padding; also what a decoder of an encoder-decoder reads first."""
    bos_id: int | None = None
    """First piece of a document, where documents have one."""
    eos_id: int | None = None
    """Last piece of a document."""
    mask_id: int | None = None
    """Stands for a hidden piece (masked LM)."""
    sentinel_ids: tuple[int, ...] = ()
    """Stand for a hidden span, in the order in which they are used (span corruption)."""
    fim_ids: dict[str, int] = field(default_factory=dict)
    """Fill-in-the-middle marks by name: prefix, suffix, middle."""
    special_ids: tuple[int, ...] = ()
    """Pieces that stand for no text; they are never masked and never put in at random."""
    starts_word: Tensor | None = None
    """Bool (V,): does this piece begin a word (whole-word masking)?"""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A batch as the network takes it; the names are those of `Transformer.hidden`."""

    tokens: Tensor
    """(B, T) what the decoder reads, or the encoder where there is no decoder."""
    targets: Tensor
    """(B, T) what it must say at each position; -100 asks nothing."""
    documents: Tensor | None = None
    """(B, T) equal numbers see one another; -1 is seen by nobody. None: a row is one document."""
    source: Tensor | None = None
    """(B, S) what the encoder of an encoder-decoder reads."""
    source_documents: Tensor | None = None
    """(B, S) the documents of `source`, numbered as in `documents`."""
    prefix: Tensor | None = None
    """(B, T) bool: positions that their whole document sees (prefix LM)."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Pieces of a window's example, on average; what it costs follows from them."""

    target: int
    """What the decoder reads, or the encoder where there is no decoder."""
    asked: float
    """Of those, the positions with a target."""
    source: int = 0
    """What the encoder of an encoder-decoder reads."""


class Objective(ABC):
    """Turns windows of the one packed corpus into examples; random only through what it draws."""

    needs: ClassVar[Needs]
    """The stacks that it trains."""

    bidirectional_prompt: ClassVar[bool] = False
    """Whether the tokens that one gives the trained network to go on with see both ways."""

    @property
    def fills_gaps(self) -> bool:
        """Whether a decoder learns to say what is missing between two parts of a document."""
        return False

    _vocabulary: Vocabulary | None = None

    def bind(self, vocabulary: Vocabulary) -> None:
        """Check that the vocabulary has what this objective uses, and remember it."""
        self.check(vocabulary)
        self._vocabulary = vocabulary

    @property
    def vocabulary(self) -> Vocabulary:
        """The bound vocabulary."""
        if self._vocabulary is None:
            name = type(self).__name__
            raise ValueError(
                f"{name} knows no vocabulary yet; call bind(vocabulary) before prepare"
            )
        return self._vocabulary

    @abstractmethod
    def check(self, vocabulary: Vocabulary) -> None:
        """Raise ValueError naming the first thing the vocabulary lacks."""

    @abstractmethod
    def prepare(self, tokens_BT1: Tensor, documents_BT1: Tensor, draws: Draws) -> Example:
        """Make an example of each window, on the tensors' device, where numbers are drawn too."""

    def prepare_evaluation(
        self, tokens_BT1: Tensor, documents_BT1: Tensor, draws: Draws
    ) -> Example:
        """The example by which validation and test judge; by default that of training."""
        return self.prepare(tokens_BT1, documents_BT1, draws)

    @property
    def mark_ids(self) -> tuple[int, ...]:
        """Targets that are marks of this objective, not text: no cost of theirs is a text's."""
        return ()

    def lengths(self, seq_len: int) -> Lengths:
        """Lengths of the example of a window of `seq_len` pieces; by default all, each asked."""
        source = seq_len if self.needs == "encoder_decoder" else 0
        return Lengths(target=seq_len, asked=seq_len, source=source)


def require_piece(objective: Objective, vocabulary: Vocabulary, field_name: str) -> int:
    """The id of a piece that the objective cannot do without."""
    piece_id = getattr(vocabulary, field_name)
    if piece_id is None:
        name = type(objective).__name__
        raise ValueError(
            f"{name} needs {field_name}, which the tokenizer lacks; "
            f"train a tokenizer with that piece or choose another objective"
        )
    return int(piece_id)


def require_share(name: str, value: float) -> None:
    """Refuse a rate outside [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(
            f"{name} ({value}) must lie between 0 and 1; set {name} to a share such as 0.15"
        )
