"""Freed memory is used again instead of being asked for anew."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from gpt4o_lit.strategies.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for turn in range(40):  # the heap settles within a dozen
    if turn == 30:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 << 20, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(choice: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, choice], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
def test_large_tensors_cost_no_page_faults_once_the_heap_has_settled():
    assert page_faults("keep") < page_faults("hand back") / 10
