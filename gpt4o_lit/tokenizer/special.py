"""Ids of the special pieces: a model's own, and new ones behind its pieces for what it lacks."""

from collections.abc import Callable

from gpt4o_lit.tokenizer.tokenizer import FIM, ROLES, SENTINELS


class SpecialIds:
    """What every tokenizer has, whatever its model was trained with.

    Args:
        num_pieces: Pieces of the model; the first new one has this id.
        own: The model's own id of a special piece, or None. A piece that the model can produce
            from text must never serve as a special one.
        pad: Its id where the model says it, else what the piece is called; so the next ones.
    """

    def __init__(
        self,
        num_pieces: int,
        own: Callable[[str], int | None],
        *,
        pad: int | str,
        bos: int | str,
        eos: int | str,
        mask: int | str,
    ) -> None:
        self._num_pieces, self._own = num_pieces, own
        self.appended: list[str] = []
        self.pad, self.bos, self.eos, self.mask = map(self._id, (pad, bos, eos, mask))
        self.sentinels = tuple(map(self._id, SENTINELS))
        self.roles = {name: self._id(piece) for name, piece in ROLES.items()}
        self.fim = {name: self._id(piece) for name, piece in FIM.items()}

    @property
    def vocab_size(self) -> int:
        """Ids in all."""
        return self._num_pieces + len(self.appended)

    def _id(self, piece: int | str) -> int:
        if isinstance(piece, int):
            return piece
        own = self._own(piece)
        if own is not None:
            return own
        if piece not in self.appended:
            self.appended.append(piece)
        return self._num_pieces + self.appended.index(piece)
