"""A draft makes writing faster and changes nothing in what is written."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gpt4o_lit.generation import Draft, SamplingConfig, decode, generate, speculate, stream
from gpt4o_lit.generation.sampling import distribution
from gpt4o_lit.model import AttentionConfig, StackConfig, Transformer, TransformerConfig
from gpt4o_lit.tokenizer import ByteTokenizer
from tests.generation.test_decode import KINDS, PROMPTS, network

tokenizer = ByteTokenizer()
GREEDY = SamplingConfig(max_new_tokens=17, temperature=0)
VOCAB = 6


@dataclass
class Digits:
    """A tokenizer so small that every text of three tokens can be counted."""

    pad_id: int = 0
    eos_id: int = 1
    vocab_size: int = VOCAB

    def encode(self, text: str) -> list[int]:
        return [int(sign) for sign in text]


def close(kind: str, net: Transformer) -> Transformer:
    """A network that often agrees with another."""
    other = network(kind)
    with torch.no_grad():
        for ours, theirs in zip(other.parameters(), net.parameters(), strict=True):
            ours.copy_(theirs + 0.06 * torch.randn_like(theirs))
    return other


@pytest.mark.parametrize("num_proposed", [1, 4, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_writing_is_identical(kind: str, num_proposed: int) -> None:
    net = network(kind)
    plain = list(decode(net, tokenizer, PROMPTS, GREEDY))
    rates = []
    for small in (network(kind), close(kind, net), net):
        draft = Draft(small, num_proposed)
        assert list(speculate(net, draft, tokenizer, PROMPTS, GREEDY)) == plain
        rates.append(draft.rate)
    assert rates[0] < rates[1] < rates[2] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_writing_ends_where_the_context_ends(kind: str) -> None:
    net = network(kind, max_seq_len=16)
    prompts = ["a" * 14, "hel", "0123456789", "b" * 16, "x" * 9]
    written = list(speculate(net, Draft(network(kind, 16)), tokenizer, prompts, GREEDY))
    assert written == list(decode(net, tokenizer, prompts, GREEDY))


def test_each_pass_of_the_large_network_gives_what_is_kept_and_one_more() -> None:
    net = network("decoder")
    draft = Draft(net, num_proposed=3)
    assert len(list(speculate(net, draft, tokenizer, ["ab"], GREEDY))) == 17
    assert (draft.checks, draft.proposed, draft.accepted) == (4, 12, 12)  # 1 + 4 * (3 + 1)
    assert draft.tokens_per_check == 4.0


def test_generate_and_stream_write_with_a_draft() -> None:
    net = network("decoder")
    config = SamplingConfig(max_new_tokens=20, temperature=1, seed=3)
    draft = Draft(close("decoder", net))
    texts = generate(net, tokenizer, PROMPTS, config, draft=draft)
    assert texts == generate(net, tokenizer, PROMPTS, config, draft=draft)
    assert "".join(stream(net, tokenizer, PROMPTS[0], config, draft=draft)) == texts[0]
    assert generate(net, tokenizer, PROMPTS, GREEDY, draft=draft) == generate(
        net, tokenizer, PROMPTS, GREEDY
    )


def tiny(dim: int) -> Transformer:
    stack = StackConfig(num_layers=1, dim=dim, attention=AttentionConfig(num_heads=2))
    config = TransformerConfig(decoder=stack, vocab_size=VOCAB, max_seq_len=8, init_std=0.8)
    return Transformer(config).eval()


@torch.no_grad()
def second_and_third(net: Transformer, prompt: list[int], config: SamplingConfig) -> Tensor:
    """The probability of each second and third token behind a prompt: (V, V)."""

    def behind(rows: Tensor) -> Tensor:
        return distribution(net(rows)[:, -1], config)

    start = torch.tensor([prompt])
    firsts = torch.cat([start.expand(VOCAB, -1), torch.arange(VOCAB)[:, None]], 1)
    pairs = torch.cartesian_prod(torch.arange(VOCAB), torch.arange(VOCAB))
    both = torch.cat([start.expand(VOCAB**2, -1), pairs], 1)
    one_V, two_VV = behind(start)[0], behind(firsts)
    three_VVV = behind(both).view(VOCAB, VOCAB, VOCAB)
    return (one_V[:, None, None] * two_VV[..., None] * three_VVV).sum(0)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0},
        pytest.param({"temperature": 0.7, "top_p": 0.9}, marks=pytest.mark.slow),
    ],
)
def test_sampled_texts_are_distributed_as_without_a_draft(options: dict[str, float]) -> None:
    net, small = tiny(16), tiny(8)
    config = SamplingConfig(max_new_tokens=3, **options)  # type: ignore[arg-type]
    count = 3000
    draft = Draft(small, num_proposed=2)
    steps = list(speculate(net, draft, Digits(), ["234"] * count, config))  # type: ignore[arg-type]
    found_VV = torch.zeros(VOCAB, VOCAB)
    found_VV.index_put_(
        (torch.tensor(steps[1]), torch.tensor(steps[2])), torch.ones(count), accumulate=True
    )
    wanted_VV = count * second_and_third(net, [2, 3, 4], config)
    drafts_VV = count * second_and_third(small, [2, 3, 4], config)
    assert found_VV[wanted_VV == 0].sum() == 0
    seen = wanted_VV > 0

    def chi_square(others_VV: Tensor) -> float:
        return float(((others_VV - wanted_VV)[seen] ** 2 / wanted_VV[seen]).sum())

    # 35 degrees of freedom at most: one in ten thousand exceeds 80.
    assert chi_square(found_VV) < 80 < 800 < chi_square(drafts_VV)
    assert 0.03 < draft.rate < 0.95


def test_what_a_draft_cannot_do_is_refused() -> None:
    net = network("decoder")
    with pytest.raises(ValueError, match=r"max_seq_len \(8\) is less than the network's \(64\)"):
        next(speculate(net, Draft(network("decoder", 8)), tokenizer, ["a"], GREEDY))
    config = SamplingConfig(repetition_penalty=1.2)
    with pytest.raises(ValueError, match="cannot be had with a draft"):
        next(speculate(net, Draft(net), tokenizer, ["a"], config))
    with pytest.raises(ValueError, match=r"num_proposed \(0\) must be at least 1"):
        next(speculate(net, Draft(net, 0), tokenizer, ["a"], GREEDY))
    with pytest.raises(ValueError, match="use `fill`"):
        next(speculate(network("encoder"), Draft(net), tokenizer, ["a"], GREEDY))
