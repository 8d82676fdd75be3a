"""The compact set of digests is a set."""

import random

import pytest

from gpt4o_lit.corpus import seen


def test_seen_is_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "PENDING", 5)
    draw = random.Random(0)
    compact, plain = seen.Seen(), set()
    for _ in range(20000):
        digest = draw.randrange(9000).to_bytes(4, "big") * 2
        assert compact.add(digest) == (digest not in plain)
        plain.add(digest)
