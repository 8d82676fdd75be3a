"""Train SentencePiece in a process of its own: its log, memory and crashes stay there."""

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from gpt4o_lit.tokenizer.sentence_piece import SPACE, SentencePieceTokenizer
from gpt4o_lit.tokenizer.tokenizer import BOS, EOS, PAD, SPECIAL_PIECES, UNK

# The trainer leaves out each sentence that holds one of these (its own marks), so we cut there.
RESERVED = re.compile("[\t\0\u2047\u2581\u2585]")
SENTENCE_LEN = 4096
# Words seen this often are offered to the unigram trainer once more, each as a sentence.
FREQUENT = 16


def train_sentence_piece(
    texts: Iterable[str],
    *,
    model_type: Literal["unigram", "bpe", "char", "word"],
    vocab_size: int = 0,
    normalization: str = "identity",
    byte_fallback: bool = True,
    character_coverage: float = 1.0,
    split_digits: bool = False,
    max_piece_len: int = 16,
    user_defined_symbols: Sequence[str] = (),
) -> SentencePieceTokenizer:
    """A tokenizer trained on the texts; the same texts give the same model on any machine."""
    arguments = {
        "model_type": model_type,
        "normalization_rule_name": normalization,
        "byte_fallback": byte_fallback,
        "character_coverage": character_coverage,
        "split_digits": split_digits,
        "max_sentencepiece_length": max_piece_len,
        **({"use_all_vocab": True} if model_type == "char" else {"vocab_size": vocab_size}),
        "user_defined_symbols": [
            *(symbol.replace(" ", SPACE) for symbol in user_defined_symbols),
            # The nmt rules turn line ends and tabs into spaces, except where they are pieces.
            *(["\n", "\t"] if normalization.startswith("nmt") else []),
        ],
    }
    sentences = [sentence for text in texts for sentence in _sentences(text)]
    if model_type == "unigram":
        sentences += _frequent_words(sentences)
    if not sentences:
        raise ValueError("the sample for the tokenizer holds no text; give sources that hold some")
    return SentencePieceTokenizer(_run({"arguments": arguments, "sentences": sentences}))


def _sentences(text: str) -> Iterator[str]:
    """The text in pieces of about SENTENCE_LEN signs, cut behind line ends where there are any."""
    for part in RESERVED.split(text):
        start = 0
        while start < len(part):
            end = part.rfind("\n", start, start + SENTENCE_LEN) + 1
            end = end if end > start else start + SENTENCE_LEN
            yield part[start:end]
            start = end


def _frequent_words(sentences: Iterable[str]) -> list[str]:
    """Words with the space before them, so that each can become a piece.

    The unigram trainer chooses among substrings that are followed by different signs. A word that a
    space always follows, as all do in text whose punctuation stands apart, would never be one.
    """
    counts = Counter(word for sentence in sentences for word in re.findall(r" \S+", sentence))
    return [word for word, count in counts.items() if count >= FREQUENT]


def _run(job: dict[str, Any]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="gpt4o-lit-") as folder:
        job_path, model_path = Path(folder) / "job.json", Path(folder) / "tokenizer.model"
        job_path.write_text(json.dumps(job), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "gpt4o_lit.tokenizer.trainer_process", job_path, model_path],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode or not model_path.is_file():
            raise ValueError(explain(done.stderr, job["arguments"]))
        return model_path.read_bytes()


def explain(log: str, arguments: dict[str, Any]) -> str:
    """One line that names the rule and the mend, out of the trainer's log."""
    size = arguments.get("vocab_size")
    if found := re.search(r"Vocabulary size too high .*?<= (\d+)", log):
        return (
            f"vocab_size ({size}) is more than the sample text yields; set vocab_size to at most "
            f"{found[1]}, or give more text"
        )
    if found := re.search(r"Vocabulary size is smaller than required_chars\. \d+ vs (\d+)", log):
        # The trainer counts its special and byte pieces among the required ones.
        return (
            f"vocab_size ({size}) is less than the characters of the sample text; set vocab_size "
            f"to at least {found[1]}, or character_coverage to less"
        )
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"SentencePiece could not train: {lines[-1] if lines else 'it was killed'}"


def trainer_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Our fixed choices beside those of the recipe."""
    named = (PAD, BOS, EOS, UNK)
    return {
        **arguments,
        "pad_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "unk_id": 3,
        "pad_piece": PAD,
        "control_symbols": [piece for piece in SPECIAL_PIECES if piece not in named],
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "max_sentence_length": 8 * SENTENCE_LEN,
        # The number of threads changes the order of sums, so it must not follow the machine.
        "num_threads": 4,
        "minloglevel": 1,
    }
