"""Spread jobs over worker processes, with a bounded number of them in memory."""

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from gpt4o_lit.corpus.encode import Job, run_job
from gpt4o_lit.corpus.shards import ShardInfo
from gpt4o_lit.tokenizer import load_tokenizer

Done = Callable[[str, ShardInfo], None]


class Pool:
    """Worker processes behind one short queue; `num_workers=0` does each job in the caller.

    `done` is called with the path of each shard and what it holds, from the pool's threads.
    """

    def __init__(self, tokenizer_path: Path, num_workers: int, done: Done) -> None:
        self._done = done
        self._tokenizer = load_tokenizer(tokenizer_path) if num_workers == 0 else None
        self._queue: queue.Queue[Job | None] = queue.Queue(maxsize=max(1, num_workers // 2))
        self._error: str = ""
        command = [sys.executable, "-m", "gpt4o_lit.corpus.worker", str(tokenizer_path)]
        # The workers do no linear algebra; a pool of threads for it only slows their start.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self._processes = [
            subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)
            for _ in range(num_workers)
        ]
        self._threads = [
            threading.Thread(target=self._feed, args=(number, process), daemon=True)
            for number, process in enumerate(self._processes)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Hand in a job; waits while the queue is full. Errors of earlier jobs are raised here."""
        if self._tokenizer is not None:
            self._done(job.path, run_job(job, self._tokenizer))
            return
        self._raise()
        self._queue.put(job)

    def _feed(self, number: int, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin
        assert process.stdout
        while (job := self._queue.get()) is not None:
            if self._error:
                continue
            path = job.path
            try:
                pickle.dump(job, process.stdin, protocol=5)
                process.stdin.flush()
                del job  # the worker has its text now
                result = pickle.load(process.stdout)
            except (OSError, EOFError, pickle.UnpicklingError):
                code = process.wait()
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else "ended"
                self._error = (
                    f"worker {number} (pid {process.pid}) {how} while it made {path}; run the "
                    "command again, with fewer workers if memory was short"
                )
                continue
            if isinstance(result, ShardInfo):
                self._done(path, result)
            else:
                self._error = str(result)

    def _raise(self) -> None:
        if self._error:
            raise OSError(self._error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is not None:
            self._error = self._error or "stopped"
        for _thread in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            process.communicate()
        if kind is None:
            self._raise()
