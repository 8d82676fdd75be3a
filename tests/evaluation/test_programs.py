"""Programs are judged by their end alone, and held to their limits."""

import itertools
import time
from pathlib import Path

import pytest

from gpt4o_lit.evaluation.programs import Limits, Problem, pass_at_k, run_program

QUICK = Limits(seconds=3, memory_bytes=256 << 20)


def test_a_program_that_ends_well_has_passed() -> None:
    assert run_program("assert sum(range(4)) == 6\nprint('x' * 10**6)", QUICK).passed


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("assert 1 == 2, 'no'", "AssertionError: no"),
        ("def f(:", "SyntaxError"),
        ("import os; os._exit(0)", "before its test"),
        ("raise SystemExit(0)", "before its test"),
        ("x = bytearray(1 << 30)", "MemoryError"),
        ("open('big', 'wb').write(bytes(2 << 20))", "File too large"),
        (
            "import socket; socket.create_connection(('127.0.0.1', 9), 1)",
            r"Network is unreachable",
        ),
        ("import os, sys; os.write(1, b'0' * 32)\nraise ValueError('told')", "ValueError: told"),
    ],
)
def test_all_else_has_failed_and_says_why(program: str, reason: str) -> None:
    outcome = run_program(program, QUICK)
    assert not outcome.passed
    assert reason in outcome.reason


def test_a_program_without_end_is_killed_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    program = f"""
import os, time
if os.fork() == 0:
    time.sleep(2)
    open({str(mark)!r}, "w").close()
while True:
    pass
"""
    start = time.monotonic()
    assert run_program(program, Limits(seconds=1)).reason == "timed out"
    assert time.monotonic() - start < 3
    time.sleep(1.5)
    assert not mark.exists()


def test_a_program_stands_in_a_folder_of_its_own() -> None:
    program = "import os; assert os.listdir() == ['.errors']; open('a', 'w').close()"
    assert run_program(program, QUICK).passed
    assert run_program(program, QUICK).passed


def test_pass_at_k_is_the_share_of_draws_with_a_right_one() -> None:
    samples = 5
    for k in range(1, samples + 1):
        for right in range(samples + 1):
            answers = [True] * right + [False] * (samples - right)
            draws = [any(draw) for draw in itertools.combinations(answers, k)]
            assert pass_at_k([right], samples, k) == pytest.approx(sum(draws) / len(draws))
    assert pass_at_k([0, 5], samples, 1) == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"k \(6\) must be within 1 and the samples \(5\)"):
        pass_at_k([1], samples, 6)


def test_a_problem_is_solved_by_what_its_test_takes() -> None:
    row = {
        "task_id": "t/0",
        "prompt": "def twice(n):\n",
        "test": "def check(candidate):\n    assert candidate(2) == 4\n",
        "entry_point": "twice",
    }
    problem = Problem.of(row)
    assert run_program(problem.program("    return 2 * n"), QUICK).passed
    assert "AssertionError" in run_program(problem.program("    return n"), QUICK).reason
    with pytest.raises(ValueError, match="no column 'test'"):
        Problem.of({name: value for name, value in row.items() if name != "test"})
