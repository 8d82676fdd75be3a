"""What it is worth to answer each question with the sentence that shares the most words with it.

    python benchmarks/best_sentence.py data/fairytaleqa/test.jsonl

The floor under ExtractiveQA: token F1 and exact match by SQuAD's rules, as `TextQuality` has them.
Rows have `question`, `context` and `answers`, a list of texts.
"""

import argparse
import json
import re
from pathlib import Path

from gpt4o_lit.evaluation.answer_metrics import answer_tokens, exact_match, token_f1

SENTENCE_END = re.compile(r"(?<=[.!?;。！？；])[\"'”’]?\s*(?=\S)")


def best_sentence(question: str, context: str) -> str:
    """The first of those that share the most different words with the question."""
    asked = set(answer_tokens(question))
    sentences = [part for part in SENTENCE_END.split(context) if part.strip()]
    return max(sentences, key=lambda sentence: len(asked & set(answer_tokens(sentence))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.rows.read_text(encoding="utf-8").splitlines()]
    answered = [(best_sentence(row["question"], row["context"]), row["answers"]) for row in rows]
    for name, score in (("token F1", token_f1), ("exact match", exact_match)):
        mean = sum(score(text, answers) for text, answers in answered) / len(rows)
        print(f"{name} {100 * mean:.1f} over {len(rows):,} questions")


if __name__ == "__main__":
    main()
