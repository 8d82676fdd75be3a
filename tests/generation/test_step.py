"""A compiled step gives the scores of an eager one, whatever the network and the rows."""

import gc
import weakref
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from gpt4o_lit.compression import Formats, round_
from gpt4o_lit.generation import (
    BeamConfig,
    Draft,
    SamplingConfig,
    beam_search,
    decode,
    generate,
    speculate,
)
from gpt4o_lit.generation.step import Step, _CompiledStep
from gpt4o_lit.model import (
    AttentionConfig,
    KVCache,
    PositionConfig,
    StackConfig,
    Transformer,
    TransformerConfig,
)
from gpt4o_lit.tokenizer import ByteTokenizer
from tests.generation.test_decode import KINDS, network

tokenizer = ByteTokenizer()
GREEDY = SamplingConfig(max_new_tokens=12, temperature=0)
PROMPTS = ["hello", "a", "some longer prompt", "xyz"]


def decoder(**attention: Any) -> Transformer:
    position = attention.pop("position", PositionConfig())
    stack = StackConfig(
        num_layers=2, dim=32, position=position, attention=AttentionConfig(num_heads=4, **attention)
    )
    size = tokenizer.vocab_size
    config = TransformerConfig(decoder=stack, vocab_size=size, max_seq_len=300, init_std=0.2)
    return Transformer(config).eval()


NETWORKS = {
    "rotary": {},
    "grouped": {"num_kv_heads": 2},
    "multi-query, normed": {"num_kv_heads": 1, "qk_norm": True},
    "window": {"window": 5},
    "biased": {"qkv_bias": True, "output_bias": True},
    "alibi": {"position": PositionConfig(kind="alibi")},
    "relative": {"position": PositionConfig(kind="relative")},
    "learned": {"position": PositionConfig(kind="learned")},
}


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
@torch.inference_mode()
def test_traced_scores_equal_eager_ones(name: str, dtype: torch.dtype) -> None:
    net = decoder(**NETWORKS[name]).to(dtype)
    caches = [KVCache(net.config, 3, 40, dtype=dtype) for _ in range(2)]
    documents = torch.tensor([[0] * 5, [0] * 2 + [-1] * 3, [0] * 4 + [-1]])
    start = torch.randint(256, (3, 5))
    for cache in caches:
        net.hidden(start, documents_BT=documents, cache=cache)
    eager, traced = (
        Step(net, 250, compiled=compiled, lengths=(1, 3)) for compiled in (False, True)
    )
    for length in (1, 3, 1, 3, 2):
        tokens = torch.randint(256, (3, length))
        wanted, found = eager(tokens, caches[0]), traced(tokens, caches[1])
        assert found.shape == (3, length, 250)
        assert found.dtype == torch.float32
        atol = 1e-4 if dtype == torch.float32 else 0.05 * float(wanted.abs().max())
        torch.testing.assert_close(found, wanted, atol=atol, rtol=0)
    for ours, theirs in zip(caches[1].keys, caches[0].keys, strict=True):
        assert (caches[0].lengths_B == caches[1].lengths_B).all()
        torch.testing.assert_close(ours.read(6), theirs.read(6), atol=atol, rtol=0)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("kind", KINDS)
def test_traced_writing_is_the_same(kind: str) -> None:
    net = network(kind)
    assert generate(net, tokenizer, PROMPTS, GREEDY, compiled=True) == generate(
        net, tokenizer, PROMPTS, GREEDY
    )


@pytest.mark.usefixtures("traced")
def test_a_text_may_outgrow_the_places_of_a_step() -> None:
    net = decoder()
    config = SamplingConfig(max_new_tokens=150, temperature=0)
    prompts = ["a" * 100, "b" * 20]
    plain = list(decode(net, tokenizer, prompts, config))
    assert list(decode(net, tokenizer, prompts, config, compiled=True)) == plain


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("position", ["rotary", "alibi", "relative"])
def test_a_window_keeps_no_more_than_it_sees(
    position: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = decoder(window=5, position=PositionConfig(kind=position))
    config = SamplingConfig(max_new_tokens=40, temperature=0)
    prompts = ["hello", "a", "a prompt longer than the window", "xyz"]
    whole = list(decode(net, tokenizer, prompts, config))
    beams = BeamConfig(num_beams=3, num_return=2, max_new_tokens=30)
    found = beam_search(net, tokenizer, prompts, beams)
    monkeypatch.setattr("gpt4o_lit.generation.prefill.CHUNK", 4)
    made: list[KVCache] = []

    def watched(*args: Any) -> KVCache:
        made.append(KVCache(*args))
        return made[-1]

    monkeypatch.setattr("gpt4o_lit.generation.prefill.KVCache", watched)
    assert list(decode(net, tokenizer, prompts, config)) == whole
    assert {keys.numbers.shape[1] for keys in made[0].keys} == {5 + 4}
    assert list(decode(net, tokenizer, prompts, config, compiled=True)) == whole
    drafted = speculate(net, Draft(decoder(window=5), 3), tokenizer, prompts, config)
    assert list(drafted) == whole
    for ours, theirs in zip(beam_search(net, tokenizer, prompts, beams), found, strict=True):
        assert [text.ids for text in ours] == [text.ids for text in theirs]
        assert [text.score for text in ours] == pytest.approx([text.score for text in theirs])


@pytest.mark.usefixtures("traced")
def test_a_second_text_of_equal_shape_compiles_nothing() -> None:
    net = network("decoder")
    generate(net, tokenizer, ["ab"], GREEDY, compiled=True)
    before = counters["stats"]["unique_graphs"]
    generate(net, tokenizer, ["another"], GREEDY, compiled=True)
    assert counters["stats"]["unique_graphs"] == before > 0


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("kind", KINDS)
def test_dynamo_is_asked_once_for_each_size_and_keeps_no_cache(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, caches, asked = network(kind, max_seq_len=300), [], []

    def watched(*args: Any) -> KVCache:
        cache = KVCache(*args)
        caches.append(weakref.ref(cache.keys[0].numbers))
        return cache

    def asks(step: _CompiledStep, *args: Any) -> torch.Tensor:
        asked.append(args)
        return call(step, *args)

    call = _CompiledStep.__call__
    monkeypatch.setattr("gpt4o_lit.generation.prefill.KVCache", watched)
    monkeypatch.setattr(_CompiledStep, "__call__", asks)
    config = SamplingConfig(max_new_tokens=140, temperature=0)
    found = list(decode(net, tokenizer, ["hello"], config, compiled=True))
    assert found == list(decode(net, tokenizer, ["hello"], config))
    assert len(asked) == 2  # for 128 places, and for 256
    asked.clear()
    gc.collect()
    assert [cache() for cache in caches] == [None, None]


@pytest.mark.usefixtures("traced")
def test_a_network_that_changed_is_compiled_anew() -> None:
    """Parts of a network are not looked at in each step, but when one is made."""
    net, other = decoder(), decoder()

    def agrees(net: Transformer) -> bool:
        return generate(net, tokenizer, PROMPTS, GREEDY, compiled=True) == generate(
            net, tokenizer, PROMPTS, GREEDY
        )

    assert agrees(net)
    assert agrees(other)  # of equal shapes, and not taken for the first
    before = counters["stats"]["unique_graphs"]
    with torch.no_grad():
        net.head.weight.mul_(-1.0)  # values may change
    assert agrees(net)
    assert counters["stats"]["unique_graphs"] == before
    round_(net, Formats().of(net))
    assert agrees(net)
    assert counters["stats"]["unique_graphs"] > before


def test_a_compiled_step_writes_the_same_with_machine_code() -> None:
    torch.compiler.reset()
    net = network("decoder")
    assert generate(net, tokenizer, PROMPTS, GREEDY, compiled=True) == generate(
        net, tokenizer, PROMPTS, GREEDY
    )


@torch.inference_mode()
def test_tokens_may_lie_as_they_like() -> None:
    """The first of each row stand where the prompts do, the next ones behind one another."""
    torch.compiler.reset()
    net, prompts = decoder(), torch.randint(250, (4, 6))
    caches = [KVCache(net.config, 4, 20) for _ in range(2)]
    steps = [Step(net, 250, compiled=compiled) for compiled in (False, True)]
    for cache in caches:
        net.hidden(prompts, cache=cache)
    for tokens in (prompts[:, :1], prompts[:, 1].clone()[:, None], prompts[:, 2:3]):
        wanted, found = (step(tokens, cache) for step, cache in zip(steps, caches, strict=True))
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("kind", KINDS)
def test_traced_drafts_and_checks_write_the_same(kind: str) -> None:
    net, draft = network(kind), Draft(network(kind), 3)
    plain = list(decode(net, tokenizer, PROMPTS, GREEDY))
    assert list(speculate(net, draft, tokenizer, PROMPTS, GREEDY, compiled=True)) == plain
    assert draft.proposed > 0


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("kind", KINDS)
def test_traced_checks_end_where_the_context_ends(kind: str) -> None:
    """Where there is no room to pad the last of them."""
    net = network(kind, max_seq_len=16)
    prompts = ["a" * 14, "hel", "0123456789", "x" * 9]
    plain = list(decode(net, tokenizer, prompts, GREEDY))
    draft = Draft(network(kind, 16))
    assert list(speculate(net, draft, tokenizer, prompts, GREEDY, compiled=True)) == plain


@pytest.mark.usefixtures("traced")
def test_the_best_draft_is_the_network_itself() -> None:
    """All that it proposes is kept, also where it has read no more than the last two tokens."""
    net = network("decoder")
    draft = Draft(net, 3)
    plain = list(decode(net, tokenizer, PROMPTS, GREEDY))
    assert list(speculate(net, draft, tokenizer, PROMPTS, GREEDY, compiled=True)) == plain
    assert draft.rate == 1.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@torch.no_grad()
def test_steps_on_a_gpu_are_recorded_and_played_again() -> None:
    from torch._dynamo.utils import counters

    net = decoder(num_kv_heads=2).cuda()
    wanted = generate(net, tokenizer, PROMPTS, GREEDY)
    counters.clear()
    assert generate(net, tokenizer, PROMPTS, GREEDY, compiled=True) == wanted
    assert counters["inductor"]["cudagraph_skips"] == 0
