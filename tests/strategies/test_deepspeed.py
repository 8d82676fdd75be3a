"""What DeepSpeed is refused before it is started."""

import sys
from datetime import timedelta

import pytest

from gpt4o_lit.strategies import DeepSpeed


def test_without_the_package_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ValueError, match=r"run: pip install 'gpt4o-lit\[deepspeed\]'"):
        DeepSpeed()


def test_numbers_are_sent_and_waited_for() -> None:
    with pytest.raises(ValueError, match=r"bucket_size \(0\) must be at least 1; leave it out"):
        DeepSpeed(bucket_size=0)
    assert DeepSpeed(timeout=timedelta(seconds=5))._timeout == timedelta(seconds=5)


def test_parts_of_weights_are_only_moved_where_weights_lie_in_parts() -> None:
    with pytest.raises(ValueError, match="offload_parameters needs stage 3"):
        DeepSpeed(stage=2, offload_parameters=True)
