"""A run's network as the start of another: its config, its weights, room for more pieces."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt4o_lit.interop.checkpoints import load_checkpoint
from gpt4o_lit.interop.run import read_config, read_weights
from gpt4o_lit.model import StackConfig, Transformer, TransformerConfig
from gpt4o_lit.run_directory import RunDirectory

BY_PIECE = ("tokens.weight", "head.weight", "head.bias")
HEAD = frozenset({"head.weight", "head.bias"})


@dataclass(frozen=True)
class Pretrained:
    """What a run has learned."""

    path: Path
    """Its best checkpoint, or its last where it was never validated."""
    config: TransformerConfig
    saved: dict[str, Any]
    """The checkpoint; weights are read from disk when they are used."""

    @classmethod
    def read(cls, run: str) -> "Pretrained":
        """Of a run's directory.

        Raises:
            FileNotFoundError: there is no such run, or it has no checkpoint yet.
        """
        path = RunDirectory.existing(run).best_checkpoint
        saved = load_checkpoint(path)
        return cls(path, read_config(saved, path), saved)

    def require_tokenizer(self, fingerprint: str) -> None:
        """Refuse data of other pieces than those that the weights were learned on.

        Raises:
            ValueError: naming the mend.
        """
        if self.saved.get("tokenizer_fingerprint") != fingerprint:
            run = self.path.parent.parent
            raise ValueError(
                f"{run} was trained on other pieces than the data has; set data.init_args.tokenizer"
                f" to class_path gpt4o_lit.tokenizer.LoadTokenizer, init_args.path {run}"
            )

    def fill_(self, network: Transformer) -> None:
        """Give a network the weights; a head that scores something else keeps its own.

        Rows of new pieces are the mean of those that are there and a little noise, so that they
        are no likelier than the rest (arXiv:2110.07038).
        """
        config = network.config
        vocab_size = config.vocab_size or 0
        state = read_weights(self.saved)
        new_head = config.num_classes is not None or self.config.num_classes is not None
        if new_head:
            state = {name: weight for name, weight in state.items() if name not in HEAD}
        for name in BY_PIECE:
            if name in state and len(state[name]) < vocab_size:
                state[name] = _extended(state[name], vocab_size)
        if config.ties_head:
            state["head.weight"] = state["tokens.weight"]
        missing, unexpected = network.load_state_dict(state, strict=False)
        if unexpected or (missing and not new_head) or not set(missing) <= HEAD:
            raise ValueError(
                f"{self.path} does not fit the network: {[*missing, *unexpected][0]} is in one of "
                "them alone; leave transformer to the run"
            )


def with_dropout(config: TransformerConfig, dropout: float | None) -> TransformerConfig:
    """The same network with this dropout in every stack; None: with its own."""
    if dropout is None:
        return config
    encoder, decoder = (_with_dropout(s, dropout) for s in (config.encoder, config.decoder))
    return replace(config, encoder=encoder, decoder=decoder)


def _with_dropout(stack: StackConfig | None, dropout: float) -> StackConfig | None:
    if stack is None:
        return None
    return replace(stack, dropout=dropout, embedding_dropout=dropout)


def _extended(rows: Tensor, count: int) -> Tensor:
    new = rows.float().mean(0, keepdim=True).expand(count - len(rows), *rows.shape[1:])
    generator = torch.Generator().manual_seed(0)  # so that each who reads the run has the same
    noise = 0.01 * rows.float().std() * torch.randn(new.shape, generator=generator)
    return torch.cat([rows, (new + noise).to(rows.dtype)])
