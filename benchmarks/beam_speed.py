"""Tokens/s of beam search with an encoder-decoder: ours, Marian and CTranslate2, in alternation.

    python benchmarks/beam_speed.py --precision fp32

The shape is transformer-base's (6 + 6 layers, 512 wide, vocabulary 32,000) with random weights, the
same for all: ours reads what Hugging Face's Marian wrote, and finds the same tokens; CTranslate2 is
measured where it is installed (`pip install ctranslate2`). A round reads a source and writes with 4
beams, for each contender in turn. Ours is `generate --num_beams 4 --compile`; what compiling takes
is told, and no part of a round.
"""

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers

from gpt4o_lit.generation import BeamConfig, beam_search
from gpt4o_lit.interop import open_hugging_face

VOCAB, SOURCE, NEW, BEAMS = 32_000, 32, 64, 4
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
EOS, PAD = 0, VOCAB - 1  # as in Marian's own vocabularies; no text is ended before its length
REST = 0.5  # seconds: threads of the one before spin for a while when they have nothing to do
Search = Callable[[], list[int]]


@dataclass(frozen=True)
class Numbers:
    """A tokenizer of ids; none of them ends a text."""

    vocab_size: int = VOCAB
    pad_id: int = PAD
    eos_id: int = -1


def marian() -> transformers.MarianMTModel:
    """Transformer-base as Hugging Face has it."""
    config = transformers.MarianConfig(
        vocab_size=VOCAB, d_model=512, encoder_layers=6, decoder_layers=6,
        encoder_attention_heads=8, decoder_attention_heads=8, encoder_ffn_dim=2048,
        decoder_ffn_dim=2048, max_position_embeddings=512, pad_token_id=PAD, eos_token_id=None,
        bos_token_id=None, decoder_start_token_id=PAD, forced_eos_token_id=None, init_std=0.05,
    )  # fmt: skip
    return transformers.MarianMTModel(config).eval()


def contenders(dtype: torch.dtype, source_1S: torch.Tensor) -> dict[str, Search]:
    """Both with the same weights."""
    theirs = marian()
    others: dict[str, Search] = {}
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        net = open_hugging_face(folder).to(dtype).eval()
        if importlib.util.find_spec("ctranslate2"):
            others["CTranslate2"] = in_a_process(Path(folder), dtype, source_1S)
            others["CTranslate2"]()  # it has read the folder when it answers
    theirs = theirs.to(dtype)
    mask = torch.ones_like(source_1S)
    config = BeamConfig(num_beams=BEAMS, max_new_tokens=NEW)
    tokenizer: Any = Numbers()

    def our_search() -> list[int]:
        (found,) = beam_search(net, tokenizer, source_1S.tolist(), config, compiled=True)
        return found[0].ids

    def their_search() -> list[int]:
        ids = theirs.generate(
            source_1S, attention_mask=mask, num_beams=BEAMS, max_new_tokens=NEW, do_sample=False
        )
        return [int(id) for id in ids[0, 1:]]

    return {"ours": our_search, "Hugging Face Marian": their_search, **others}


def in_a_process(folder: Path, dtype: torch.dtype, source_1S: torch.Tensor) -> Search:
    """CTranslate2 alone: two libraries of threads in one process slow each other down."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    context.Process(target=serve, args=(folder, dtype, source_1S, theirs), daemon=True).start()
    theirs.close()

    def search() -> list[int]:
        pipe.send(True)
        found: list[int] = pipe.recv()
        return found

    return search


def serve(folder: Path, dtype: torch.dtype, source_1S: torch.Tensor, pipe: Connection) -> None:
    """Search whenever it is asked to."""
    search = ctranslate2(folder, dtype, source_1S)
    with contextlib.suppress(EOFError):  # whoever asks has ended
        while pipe.recv():
            pipe.send(search())


def ctranslate2(folder: Path, dtype: torch.dtype, source_1S: torch.Tensor) -> Search:
    """CTranslate2 on the saved model, to which a vocabulary of numbers is added."""
    library: Any = importlib.import_module("ctranslate2")
    words = {"</s>": EOS, "<unk>": 1, **{str(id): id for id in range(2, PAD)}, "<pad>": PAD}
    (folder / "vocab.json").write_text(json.dumps(words))
    settings = {"tokenizer_class": "MarianTokenizer", "separate_vocabs": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    for name in ("source.spm", "target.spm"):
        with (folder / name).open("wb") as model:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(["0 1 2"]), model_writer=model, vocab_size=10,
                hard_vocab_limit=False, minloglevel=2,
            )  # fmt: skip
    library.converters.TransformersConverter(str(folder)).convert(str(folder / "converted"))
    translator = library.Translator(
        str(folder / "converted"), compute_type=str(dtype).removeprefix("torch."), inter_threads=1,
        intra_threads=torch.get_num_threads(),
    )  # fmt: skip
    source = [[str(id) for id in source_1S[0].tolist()]]

    def search() -> list[int]:
        (found,) = translator.translate_batch(
            source, beam_size=BEAMS, max_decoding_length=NEW, min_decoding_length=NEW
        )
        return [words[word] for word in found.hypotheses[0]]

    return search


@torch.inference_mode()
def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    source_1S = torch.randint(2, PAD, (1, SOURCE))
    searches = contenders(PRECISIONS[args.precision], source_1S)
    start = time.perf_counter()
    found = {name: search() for name, search in searches.items()}
    same = found["ours"] == found["Hugging Face Marian"]
    print(f"warm up: {time.perf_counter() - start:.1f} s; the same tokens: {same}", flush=True)
    times: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(args.rounds):
        for name, search in searches.items():
            time.sleep(REST)
            start = time.perf_counter()
            search()
            times[name].append(time.perf_counter() - start)
    speeds = {name: NEW / statistics.median(taken) for name, taken in times.items()}
    print(f"{args.precision}, source {SOURCE}, {NEW} new tokens, {BEAMS} beams")
    for name, speed in speeds.items():
        print(f"{name:<20} {speed:7.1f} tokens/s   ours / this {speeds['ours'] / speed:5.2f}")


if __name__ == "__main__":
    main()
