"""A worker process: jobs come in on stdin, what was written goes out on stdout.

Plain pipes and no `multiprocessing`: the caller's main module is never imported a second time, no
process is forked under running threads, and a killed caller ends the pipe and so the worker.
"""

import gc
import pickle
import sys
from typing import BinaryIO

from gpt4o_lit.corpus.encode import run_job
from gpt4o_lit.tokenizer import load_tokenizer


def main(tokenizer_path: str, jobs: BinaryIO, results: BinaryIO) -> None:
    """Do jobs until the pipe ends; a result is a ShardInfo, or the error as a string."""
    # Nothing here makes cycles, and looking for them among millions of ids takes long.
    gc.disable()
    tokenizer = load_tokenizer(tokenizer_path)
    while True:
        try:
            job = pickle.load(jobs)
        except EOFError:
            return
        try:
            result: object = run_job(job, tokenizer)
        except (ValueError, OSError) as error:
            result = f"{type(error).__name__}: {error}"
        pickle.dump(result, results)
        results.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)
