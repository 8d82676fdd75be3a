"""Perplexity per word of a run on a text of words, from its bits per byte.

    python benchmarks/word_perplexity.py runs/wikitext2/TIME --text data/wikitext2/test.txt

WikiText counts each word between blanks and the end of each line (`<eos>`): 245,569 for its test
text. Pieces, words and bytes cut one text in different ways, so its probability is the same however
it is counted: the total of the negative log-likelihoods of all pieces, line ends included, divided
by the number of words, is the logarithm of the perplexity per word. The total is what
`gpt4o-lit test` reports as bits per byte, times the bytes; the tokenizer must change no byte
(normalization: identity).
"""

import argparse
import csv
import math
import subprocess
import sys
import tempfile
from pathlib import Path


def bits_per_byte(run: Path) -> float:
    """What the run's best weights need for its test text."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "test"
        command = [sys.executable, "-m", "gpt4o_lit", "test", "--resume", str(run)]
        subprocess.run([*command, "--run_dir", str(out)], check=True, timeout=3600)
        with (out / "metrics.csv").open(encoding="utf-8") as lines:
            return float(list(csv.DictReader(lines))[-1]["test/bits_per_byte"])


def count(text: str) -> int:
    """Words between blanks, and one for the end of each line."""
    return sum(len(line.split()) + 1 for line in text.split("\n")[:-1])


def main() -> None:
    """Measure and convert."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    args = parser.parse_args()
    text = args.text.read_bytes()
    words = count(text.decode())
    bits = bits_per_byte(args.run)
    perplexity = math.exp(bits * math.log(2) * len(text) / words)
    print(f"{words} words, {len(text)} bytes, {bits:.4f} bits per byte")
    print(f"perplexity per word: {perplexity:.2f}")


if __name__ == "__main__":
    main()
