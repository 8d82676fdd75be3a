"""The process that `train.py` starts: read a job, train, write the model."""

import json
import sys
from pathlib import Path

import sentencepiece

from gpt4o_lit.tokenizer.train import trainer_arguments


def main(job_path: str, model_path: str) -> None:
    """Train on the job's sentences; the model appears at `model_path` only when it is whole."""
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    part = Path(model_path + ".part")
    with part.open("wb") as out:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(job["sentences"]),
            model_writer=out,
            **trainer_arguments(job["arguments"]),
        )
    part.rename(model_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
