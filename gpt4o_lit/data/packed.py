"""The data module of pretraining: raw text in, packed windows of tokens out."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning import LightningDataModule

from gpt4o_lit.corpus import Corpus, CorpusConfig, prepare
from gpt4o_lit.data.loader import PackedLoader, order_in
from gpt4o_lit.tokenizer import Tokenizer, TokenizerRecipe

NUM_PROMPTS, PROMPT_LEN = 3, 16


class PackedDataModule(LightningDataModule):
    """Builds the corpus when needed and serves it as packed windows.

    Args:
        corpus: Where the text comes from and how it is split.
        tokenizer: The tokenizer to train or to load.
        directory: Where tokenizer and shards are kept; used again while nothing has changed.
        seq_len: Tokens the network reads at once.
        batch_size: Windows in a training batch, per process.
        eval_batch_size: Windows in a validation or test batch, per process. Default: batch_size.
        seed: Of the order in which training windows are drawn.
        num_workers: Processes that tokenize while the corpus is built. Default: one more than
            cores, 12 at most.
    """

    def __init__(
        self,
        corpus: CorpusConfig,
        tokenizer: TokenizerRecipe,
        directory: str,
        seq_len: int = 256,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        seed: int = 0,
        num_workers: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"seq_len": seq_len, "batch_size": batch_size}.items():
            if value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1")
        self.corpus_config, self.tokenizer_recipe = corpus, tokenizer
        self.directory = Path(directory)
        self.seq_len, self.batch_size, self.seed = seq_len, batch_size, seed
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.corpus: Corpus | None = None
        self._identity: str | None = None

    def prepare_data(self) -> None:
        """Build the corpus, or see in under a second that it stands."""
        prepared = prepare(
            self.corpus_config,
            self.tokenizer_recipe,
            self.directory,
            num_workers=self.num_workers,
            progress=True,
        )
        self._identity = prepared.identity

    def setup(self, stage: str) -> None:
        """Open the corpus that `prepare_data` left, on every process the same."""
        if self.corpus is None:
            trainer = self.trainer
            identity = trainer.strategy.broadcast(self._identity) if trainer else self._identity
            self.corpus = Corpus.open(self.directory, expected=identity)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the corpus."""
        return self._opened().tokenizer

    @property
    def checksum(self) -> str:
        """Equal checksums: the same pieces in the same order."""
        return self._opened().identity

    @property
    def tokens_per_batch(self) -> int:
        """Pieces of a training batch on each process."""
        return self.batch_size * self.seq_len

    @property
    def longest_row(self) -> int:
        """Most pieces that the network reads in a row."""
        return self.seq_len

    @property
    def batches_per_epoch(self) -> int:
        """Training batches in an epoch on each process, within Trainer's limit."""
        loader = self.train_dataloader()
        return len(loader) if loader.limit is None else min(loader.limit, len(loader))

    def train_dataloader(self) -> PackedLoader:
        """Shuffled windows of the training split, whole batches only; always the same few to
        overfit on."""
        trainer: Any = self.trainer
        loader = self._loader("train", self.batch_size, not (trainer and trainer.overfit_batches))
        limit = trainer.limit_train_batches if trainer else None
        loader.limit = int(limit * len(loader)) if isinstance(limit, float) else limit
        if len(loader) == 0:
            windows, processes = loader.split.num_windows(self.seq_len), loader.order.world_size
            raise ValueError(
                f"the training split has {windows} windows of seq_len {self.seq_len}, fewer than a "
                f"batch_size of {self.batch_size} x {processes} processes; lower one of them"
            )
        return loader

    def val_dataloader(self) -> PackedLoader:
        """Every window of the validation split, in order."""
        return self._loader("valid", self.eval_batch_size, False)

    def test_dataloader(self) -> PackedLoader:
        """Every window of the test split, in order."""
        return self._loader("test", self.eval_batch_size, False)

    def predict_dataloader(self) -> PackedLoader:
        """The test split."""
        return self.test_dataloader()

    def prompts(self, *, masked: bool, longest: int) -> list[str]:
        """The first pieces of the first validation documents, every fifth hidden for an encoder."""
        split, tokenizer = self._opened().split("valid"), self.tokenizer
        starts = [*split.document_starts[: NUM_PROMPTS + 1].tolist(), split.num_tokens]
        prompts = []
        for start, end in pairwise(starts[: NUM_PROMPTS + 1]):
            tokens = split.tokens(start, min(start + PROMPT_LEN, start + longest, end)).tolist()
            ids = [id for id in tokens if id not in (tokenizer.bos_id, tokenizer.eos_id)]
            text = with_masks(tokenizer, ids) if masked else tokenizer.decode(ids)
            prompts.append(text.rstrip("\ufffd"))
        return prompts

    def trained_on(self, batches: int) -> str:
        """A sentence on the data and how much of it so many batches on all processes were."""
        split, order = self._opened().split("train"), order_in(self.trainer, self.seed, True, "")
        tokens = batches * order.world_size * self.tokens_per_batch
        sources = ", ".join(f"`{source}`" for source in self.corpus_config.sources)
        return (
            f"{sources}: {split.num_documents:,} documents, {split.num_bytes:,} bytes, "
            f"{split.num_tokens:,} tokens of training text, of which {tokens:,} tokens were seen, "
            f"{tokens / max(split.num_tokens, 1):.2f} times the text."
        )

    def _loader(self, split: str, batch_size: int, shuffle: bool) -> PackedLoader:
        return PackedLoader(
            self._opened().split(split),
            seq_len=self.seq_len,
            batch_size=batch_size,
            order=order_in(self.trainer, self.seed, shuffle, self.checksum),
        )

    def _opened(self) -> Corpus:
        if self.corpus is None:
            self.corpus = Corpus.open(self.directory)
        return self.corpus


def with_masks(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of the ids with each fifth hidden, or, of four and fewer, a mask behind them."""
    parts = [tokenizer.decode(ids[i : i + 4]) for i in range(0, len(ids), 5)]
    return "<mask>".join(parts) if len(ids) > 5 else "".join(parts) + "<mask>"
