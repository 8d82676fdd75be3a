"""A run directory as `fit` leaves it, made on the spot."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from gpt4o_lit.compression import Formats, round_
from gpt4o_lit.interop.run import open_run, save_opened
from gpt4o_lit.model import (
    AttentionConfig,
    PositionConfig,
    StackConfig,
    Transformer,
    TransformerConfig,
)
from gpt4o_lit.tokenizer import ByteTokenizer

tokenizer = ByteTokenizer()
MakeRun = Callable[..., tuple[Path, Transformer]]


def packed(run: Path) -> Path:
    """The run in whole numbers of 8 bits, as `compress` leaves it, beside it."""
    opened, directory = open_run(run), run.parent / "packed"
    round_(opened.transformer, Formats().of(opened.transformer))
    save_opened(opened, directory)
    return directory


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A run directory as `fit` leaves it, and the network in it."""

    def make(
        kind: str = "decoder",
        checkpoint: str = "best",
        position: PositionConfig | None = None,
        tied: bool = True,
        add_bos: bool = False,
        bidirectional_prompt: bool = False,
        fills_gaps: bool = False,
        attention: dict[str, int] | None = None,
    ) -> tuple[Path, Transformer]:
        stack = StackConfig(
            num_layers=2,  # with one, a prompt's last token sees the same either way
            dim=16,
            attention=AttentionConfig(num_heads=2, **(attention or {})),  # type: ignore[arg-type]
            position=position or PositionConfig(),
        )
        config = TransformerConfig(
            encoder=stack if kind != "decoder" else None,
            decoder=stack if kind != "encoder" else None,
            vocab_size=tokenizer.vocab_size,
            max_seq_len=32,
            tie_embeddings=tied,
            init_std=0.3,
        )
        net, run = Transformer(config).eval(), tmp_path / "run"
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        tokenizer.save(run / "tokenizer")
        settings = {"data": {"init_args": {"corpus": {"add_bos": add_bos}}}}
        (run / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        state = {f"transformer.{name}": weight for name, weight in net.state_dict().items()}
        saved = {"state_dict": state, "transformer_config": config.to_dict()}
        saved |= {"bidirectional_prompt": bidirectional_prompt, "fills_gaps": fills_gaps}
        torch.save(saved, run / "checkpoints" / f"{checkpoint}.ckpt")
        return run, net

    return make
