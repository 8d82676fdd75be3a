"""Texts that are held to a pattern match it, and are the likeliest that do."""

import json
import re
import sys

import pytest
import torch

from gpt4o_lit.generation import (
    BeamConfig,
    Constraint,
    Draft,
    Pattern,
    SamplingConfig,
    generate,
    search,
    speculate,
)
from gpt4o_lit.tokenizer import ByteTokenizer, Tokenizer, TrainSentencePiece
from tests.generation.test_decode import KINDS, network

SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["cat", "dog"]}, "old": {"type": "boolean"}},
    "required": ["name", "old"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=["bytes", "unigram"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "bytes":
        return ByteTokenizer()
    words = ["the cat sat on a mat", "abc abcd bcd", '{"name": "dog", "old": true}']
    return TrainSentencePiece(vocab_size=400).build(["\n".join(words) + "\n"] * 30)


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_texts_match(kind: str, tokenizer: Tokenizer) -> None:
    net = network(kind, extra=tokenizer.vocab_size - ByteTokenizer.vocab_size)
    pattern = Pattern(regex=r"[a-c]{2,5}( the)?[.!?]")
    config = SamplingConfig(max_new_tokens=12, temperature=1.5, pattern=pattern)
    texts = generate(net, tokenizer, ["a", "the cat", "x", "", "mat"] * 4, config)
    assert all(re.fullmatch(str(pattern.regex), text) for text in texts)
    assert len(set(texts)) > 5


def test_texts_of_a_json_schema_are_json_of_it(tokenizer: Tokenizer) -> None:
    net = network("decoder", 128, extra=tokenizer.vocab_size - ByteTokenizer.vocab_size)
    pattern = Pattern(
        json_schema=json.dumps({**SCHEMA, "x-guidance": {"whitespace_flexible": False}})
    )
    config = SamplingConfig(max_new_tokens=60, temperature=1.0, pattern=pattern)
    for text in generate(net, tokenizer, ["a", "the cat"] * 4, config):
        value = json.loads(text)
        assert value.keys() == {"name", "old"}
        assert value["name"] in {"cat", "dog"}
        assert isinstance(value["old"], bool)


@pytest.mark.parametrize("kind", KINDS)
def test_beams_find_the_likeliest_texts_that_match(kind: str) -> None:
    net, tokenizer = network(kind), ByteTokenizer()
    config = BeamConfig(
        num_beams=6, num_return=4, max_new_tokens=8, length_penalty=0.0,
        early_stopping="never", pattern=Pattern(regex="(a|b)(c|d)"),
    )  # fmt: skip
    (found,) = search(net, tokenizer, ["hello"], config)
    scores = {}
    for text in ("ac", "ad", "bc", "bd"):
        ids = [*tokenizer.encode(text), tokenizer.eos_id]
        prompt = tokenizer.encode("hello")
        source = torch.tensor([prompt]) if kind == "encoder_decoder" else None
        start = [tokenizer.pad_id] if kind == "encoder_decoder" else prompt
        with torch.no_grad():
            logits = net(torch.tensor([start + ids[:-1]]), source_BS=source)[0, -len(ids) :]
        scores[text] = float(logits.log_softmax(-1)[range(len(ids)), ids].sum())
    assert [text for text, _ in found] == sorted(scores, key=lambda text: -scores[text])
    for text, score in found:
        assert score == pytest.approx(scores[text], abs=1e-4)


def test_a_constraint_tells_whole_texts_from_others(tokenizer: Tokenizer) -> None:
    constraint = Constraint(tokenizer, Pattern(regex="(yes|no)( sir)?"))
    for text, is_met in {"yes": True, "no sir": True, "no si": False, "": False}.items():
        assert constraint.is_met(tokenizer.encode(text)) is is_met
    matcher = constraint.start()
    assert matcher.read(tokenizer.encode("no"))
    other = matcher.copy()
    assert matcher.read([tokenizer.eos_id])
    assert matcher.allowed().nonzero().tolist() == [[tokenizer.eos_id]]
    assert other.may_end
    assert other.read(tokenizer.encode(" sir"))


@pytest.mark.parametrize(
    ("regex", "schema", "message"),
    [
        ("(a", None, r"regex cannot be used .*unclosed group.*mend it"),
        (None, "{", "json_schema is broken JSON"),
        (None, '{"type": "cat"}', r"json_schema cannot be used .*cat"),
        ("a", "{}", "give either a regex or a json_schema"),
        (None, None, "give either a regex or a json_schema"),
    ],
)
def test_a_broken_pattern_is_one_line(regex: str | None, schema: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Constraint(ByteTokenizer(), Pattern(regex=regex, json_schema=schema))
    assert "\n" not in str(caught.value)


def test_without_the_library_the_mend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ValueError, match=r"pip install 'gpt4o-lit\[constraint\]'"):
        Constraint(ByteTokenizer(), Pattern(regex="a"))


def test_a_draft_and_a_pattern_exclude_each_other() -> None:
    net = network("decoder")
    config = SamplingConfig(pattern=Pattern(regex="a+"))
    with pytest.raises(ValueError, match="a pattern cannot be had with a draft"):
        next(speculate(net, Draft(net), ByteTokenizer(), ["a"], config))
