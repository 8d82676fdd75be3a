"""Perplexity per word of a run on a text of words.

    python benchmarks/word_perplexity.py runs/wikitext2/TIME --text data/wikitext2/test.txt

WikiText counts each word between blanks and the end of each line (`<eos>`): 245,569 for its test
text. Pieces, words and bytes cut one text in different ways, so its probability is the same however
it is counted: the sum of the negative log-likelihoods of all pieces, line ends included, divided by
the number of words, is the logarithm of the perplexity per word.

Side by side, as in `gpt4o-lit test`, the first pieces of a window are read without what comes
before them. With windows that overlap by half, each piece but those of the first window has at
least half a window before it; each is still judged once. The text's first piece is not judged.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

from gpt4o_lit.interop.run import OpenedRun, open_run
from gpt4o_lit.objectives import token_statistics


def count(text: str) -> int:
    """Words between blanks, and one for the end of each line."""
    return sum(len(line.split()) + 1 for line in text.split("\n")[:-1])


@torch.inference_mode()
def nats(run: OpenedRun, ids: Tensor, stride: int) -> float:
    """Sum of the negative log-likelihoods of all pieces but the first, `stride` judged a window."""
    head, length = run.transformer.head, run.transformer.config.max_seq_len
    total = 0.0
    for judged_to in range(stride, len(ids) - 1 + stride, stride):
        end = min(judged_to, len(ids) - 1)
        start = max(0, judged_to - length)
        hidden_1TD = run.transformer.hidden(ids[None, start:end])
        fresh = end - (judged_to - stride)
        features_TD = head.features(hidden_1TD)[0, -fresh:]
        targets_T = ids[start + 1 : end + 1][-fresh:]
        nll_T, _ = token_statistics(
            features_TD, head.weight, targets_T, bias=head.bias, softcap=head.softcap
        )
        total += float(nll_T.double().sum())
    return total


def main() -> None:
    """Measure side by side and overlapping, and convert."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    args = parser.parse_args()
    run = open_run(args.run)
    text = args.text.read_bytes().decode()
    ids = torch.tensor(run.tokenizer.encode(text))
    if run.tokenizer.decode(ids.tolist()) != text:
        parser.error("the tokenizer changes the text (normalization); its perplexity means nothing")
    words, length = count(text), run.transformer.config.max_seq_len
    print(f"{run.checkpoint}: {words:,} words, {len(ids):,} pieces, {len(text.encode()):,} bytes")
    for stride, name in ((length, "side by side"), (length // 2, "overlapping by half")):
        total = nats(run, ids, stride)
        bits = total / math.log(2) / len(text.encode())
        print(
            f"windows of {length} {name}: perplexity per word {math.exp(total / words):.2f}, "
            f"bits per byte {bits:.4f}"
        )


if __name__ == "__main__":
    main()
