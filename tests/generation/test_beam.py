"""Beam search gives Hugging Face's texts and scores, and what a search of everything would find."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gpt4o_lit.generation import BeamConfig, Hypothesis, SamplingConfig, beam_search, decode, search
from gpt4o_lit.interop import open_hugging_face
from gpt4o_lit.tokenizer import ByteTokenizer
from tests.generation.test_decode import KINDS, PROMPTS, network
from tests.interop.tiny_hugging_face import PAIRS, make

NAMES = ["gpt2", "llama", "mistral-window", "qwen3", "t5", "marian"]
SOURCES = [9, 4, 9, 6, 1]
NEVER = 7


@dataclass
class Numbers:
    """A tokenizer of numbers: Hugging Face's tiny models have no pieces."""

    pad_id: int
    eos_id: int = NEVER
    vocab_size: int = 61

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]


def prompts_of(lengths: list[int]) -> list[list[int]]:
    torch.manual_seed(5)
    return [torch.randint(8, 60, (length,)).tolist() for length in lengths]


def theirs(
    model: nn.Module, name: str, rows: list[list[int]], numbers: Numbers, **options: Any
) -> tuple[list[list[int]], Tensor | None]:
    """Hugging Face's texts and scores; decoders want padding on the left."""
    longest = max(map(len, rows))
    is_pair = name in PAIRS
    padding = [[numbers.pad_id] * (longest - len(row)) for row in rows]
    pairs = list(zip(rows, padding, strict=True))
    ids = torch.tensor([row + empty if is_pair else empty + row for row, empty in pairs])
    real = torch.tensor(
        [
            [1] * len(row) + [0] * len(empty) if is_pair else [0] * len(empty) + [1] * len(row)
            for row, empty in pairs
        ]
    )
    made: Any = model.generate(
        ids, attention_mask=real, do_sample=False, eos_token_id=numbers.eos_id,
        pad_token_id=numbers.pad_id, decoder_start_token_id=numbers.pad_id if is_pair else None,
        use_cache=name != "t5",  # theirs counts the encoder's layers where the decoder has more
        forced_eos_token_id=None, return_dict_in_generate=True, output_scores=True, **options,
    )  # fmt: skip
    start = 1 if is_pair else longest
    texts = [row[start:] for row in made.sequences.tolist()]
    cut = [cut_at(numbers.eos_id, row) for row in texts]
    return cut, getattr(made, "sequences_scores", None)


def cut_at(eos_id: int, row: list[int]) -> list[int]:
    return row[: row.index(eos_id)] if eos_id in row else row


def opened(name: str, folder: Path) -> tuple[nn.Module, Any, Numbers]:
    """Their model, ours of its weights, and numbers of which one that they like ends a text."""
    model = make(name)
    model.save_pretrained(folder)
    numbers = Numbers(model.config.pad_token_id if name in PAIRS else 60)
    free, _ = theirs(model, name, prompts_of(SOURCES), numbers, num_beams=4, max_new_tokens=14)
    liked = Counter(token for row in free for token in row[4:])
    return (
        model,
        open_hugging_face(folder).eval(),
        replace(numbers, eos_id=max(liked, key=liked.get)),
    )


def texts_of(rows: list[list[int]]) -> list[str]:
    return [" ".join(map(str, row)) for row in rows]


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0, -1.0])
@pytest.mark.parametrize("name", NAMES)
def test_beams_equal_hugging_face(
    name: str, length_penalty: float, early_stopping: Any, tmp_path: Path
) -> None:
    model, net, numbers = opened(name, tmp_path)
    rows = prompts_of(SOURCES)
    options = {
        "num_beams": 4,
        "max_new_tokens": 14,
        "length_penalty": length_penalty,
        "early_stopping": early_stopping,
    }
    wanted, scores = theirs(model, name, rows, numbers, num_return_sequences=3, **options)
    config = BeamConfig(num_return=3, **options)
    found = beam_search(net, numbers, texts_of(rows), config)
    ours = [text for texts in found for text in texts]
    assert [text.ids for text in ours] == wanted
    assert scores is not None
    torch.testing.assert_close(torch.tensor([text.score for text in ours]), scores)
    if (length_penalty, early_stopping) != (2.0, "never"):
        assert min(map(len, wanted)) < 14, "a search in which no text ends proves little"


@pytest.mark.parametrize("name", NAMES)
def test_greedy_equals_hugging_face(name: str, tmp_path: Path) -> None:
    model, net, numbers = opened(name, tmp_path)
    rows = prompts_of(SOURCES)
    wanted, _ = theirs(model, name, rows, numbers, max_new_tokens=24)
    config = SamplingConfig(temperature=0, max_new_tokens=24)
    steps = list(decode(net, numbers, texts_of(rows), config))
    ours = [list(row) for row in zip(*steps, strict=True)]
    assert [cut_at(numbers.eos_id, row) for row in ours] == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_equals_each_alone(kind: str) -> None:
    net, tokenizer = network(kind, max_seq_len=20), ByteTokenizer()
    prompts = [*PROMPTS, "x" * 15, "y" * 20]
    config = BeamConfig(num_beams=3, num_return=3, max_new_tokens=9)
    together = beam_search(net, tokenizer, prompts, config)
    for prompt, texts in zip(prompts, together, strict=True):
        (alone,) = beam_search(net, tokenizer, [prompt], config)
        assert [text.ids for text in texts] == [text.ids for text in alone]
        assert [text.score for text in texts] == pytest.approx([text.score for text in alone])


@pytest.mark.parametrize("kind", KINDS)
def test_enough_beams_find_the_likeliest_of_all_texts(kind: str) -> None:
    net, tokenizer = network(kind), ByteTokenizer()
    size = tokenizer.vocab_size
    ids = tokenizer.encode("abc")
    source = torch.tensor([ids]) if kind == "encoder_decoder" else None
    start = [tokenizer.pad_id] if kind == "encoder_decoder" else ids
    with torch.no_grad():
        first_V = net(torch.tensor([start]), source_BS=source)[0, -1].log_softmax(-1)
        rows = torch.tensor([[*start, token] for token in range(size)])
        sources = None if source is None else source.expand(size, -1)
        second_VV = net(rows, source_BS=sources)[:, -1].log_softmax(-1)
    both_VV = first_V[:, None] + second_VV
    both_VV[tokenizer.eos_id] = float("-inf")
    alone = Hypothesis([], float(first_V[tokenizer.eos_id]))
    scores, places = both_VV.flatten().topk(5)
    wanted = [
        Hypothesis([t for t in divmod(place, size) if t != tokenizer.eos_id], score)
        for place, score in zip(places.tolist(), scores.tolist(), strict=True)
    ]
    wanted = sorted([*wanted, alone], key=lambda text: -text.score)[:5]
    config = BeamConfig(
        num_beams=size, num_return=5, max_new_tokens=2, length_penalty=0.0, early_stopping="never"
    )
    (found,) = beam_search(net, tokenizer, ["abc"], config)
    assert [text.ids for text in found] == [text.ids for text in wanted]
    assert [text.score for text in found] == pytest.approx([t.score for t in wanted], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_goes_beyond_a_stop_string(kind: str) -> None:
    net, tokenizer = network(kind), ByteTokenizer()
    free = BeamConfig(num_beams=4, num_return=4, max_new_tokens=12, length_penalty=0.0)
    (texts,) = search(net, tokenizer, ["ab"], free)
    stop = max((text for text, _ in texts), key=len)[2:4]
    assert len(stop) == 2
    held = BeamConfig(
        num_beams=4, num_return=4, max_new_tokens=12, length_penalty=0.0, stop=(stop,)
    )
    (shorter,) = search(net, tokenizer, ["ab"], held)
    assert not any(stop in text for text, _ in shorter)
    assert shorter != texts
    scores = [score for _, score in shorter]
    assert scores == sorted(scores, reverse=True)


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(ValueError, match=r"num_return \(5\) must be at most num_beams \(4\)"):
        BeamConfig(num_return=5)
    with pytest.raises(ValueError, match=r"num_beams \(0\) must be at least 1"):
        BeamConfig(num_beams=0)
    with pytest.raises(ValueError, match="stop holds an empty string"):
        BeamConfig(stop=("",))
    with pytest.raises(ValueError, match="use `fill`"):
        beam_search(network("encoder"), ByteTokenizer(), ["a"], BeamConfig())
