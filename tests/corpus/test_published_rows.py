"""Published sets are read whole, each with the rows that it should have."""

from pathlib import Path
from typing import Any

import pytest

from gpt4o_lit.corpus.rows import read_rows

DATA = {
    "tatoeba_zh_en": (
        ["en", "zh"], {"train.tsv": 25615, "valid.tsv": 1416, "test.tsv": 1416}),
    "sst2": (None, {"train.tsv": 6920, "dev.tsv": 872, "test.tsv": 1821}),
    "dialogsum": (None, {"dialogsum.train.jsonl.gz": 12460, "dialogsum.dev.jsonl": 500,
                         "dialogsum.test.jsonl": 500}),
    "fairytaleqa": (None, {"train.jsonl.gz": 8548, "val.jsonl": 1025, "test.jsonl": 1007}),
    "django_code": (None, {"train.jsonl": 16000, "dev.jsonl": 1000, "test.jsonl": 1805}),
    "instruct_demo": (None, {"alpaca_en_demo.json": 999, "alpaca_zh_demo.json": 1000,
                             "glaive_toolcall_en_demo.json": 300, "dpo_en_demo.json": 300,
                             "kto_en_demo.json": 300, "identity.json": 91, "c4_demo.jsonl": 300}),
}  # fmt: skip
FIELDS: dict[str, dict[str, Any]] = {
    "tatoeba_zh_en": {"en": str, "zh": str}, "sst2": {"label": str, "sentence": str},
    "dialogsum": {"dialogue": str}, "fairytaleqa": {"question": str, "answers": list},
    "django_code": {"text": str, "code": str}, "instruct_demo": {},
}  # fmt: skip


@pytest.mark.data
@pytest.mark.parametrize("name", DATA)
def test_published_sets_have_as_many_rows_as_they_should(name: str, real_data: Path) -> None:
    columns, num_rows = DATA[name]
    for file, expected in num_rows.items():
        source = str(real_data / name / file)
        found = list(read_rows(source, columns, fields=FIELDS[name]))
        assert len(found) == expected, file
        assert len({row.place for row in found}) == expected
