"""What deployment costs is what the measuring process itself takes."""

import subprocess
import sys

import numpy as np
import pytest

CODE = """
from gpt4o_lit.evaluation.deploy import measure_here
from gpt4o_lit.model import AttentionConfig, StackConfig, Transformer, TransformerConfig
stack = StackConfig(num_layers=1, dim=8, attention=AttentionConfig(num_heads=1))
net = Transformer(TransformerConfig(decoder=stack, vocab_size=9, max_seq_len=8))
print(measure_here(net, num_tokens=2).peak_memory_bytes)
"""


def peak_of_a_child() -> int:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout)


@pytest.mark.slow
def test_memory_of_the_parent_is_not_charged_to_the_child() -> None:
    alone = peak_of_a_child()
    ballast = np.ones(600 << 20, dtype=np.uint8)
    beside = peak_of_a_child()
    assert ballast[-1] == 1
    assert alone > 50 << 20
    assert abs(beside - alone) < 60 << 20
    assert beside < ballast.nbytes
