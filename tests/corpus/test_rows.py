"""Rows: the same out of every format, and what cannot be read named by file and line."""

import codecs
import csv
import gzip
import io
import json
import tracemalloc
from array import array
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from gpt4o_lit.corpus import json_rows, rows
from gpt4o_lit.corpus.documents import Skips
from gpt4o_lit.corpus.rows import files_of, read_rows

TEXTS = [
    {"zh": "春眠不覺曉 😀", "en": 'he said "no"'},
    {"zh": '"', "en": "  spaces, commas "},
    {"zh": "", "en": "last\u2028\x85 '"},
]


def as_tsv(values: list[dict[str, str]]) -> bytes:
    lines = [list(values[0]), *(row.values() for row in values)]
    return "".join("\t".join(line) + "\n" for line in lines).encode()


def as_csv(values: list[dict[str, str]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([list(values[0]), *(row.values() for row in values)])
    return out.getvalue().encode()


def as_jsonl(values: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row) for row in values).encode()


def as_literals(values: list[dict[str, Any]]) -> bytes:
    return "\n".join(f"{row!r}" for row in values).encode()


def as_json(values: list[dict[str, Any]]) -> bytes:
    return json.dumps(values, indent=1, ensure_ascii=False).encode()


def as_parquet(values: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(values), out)
    return out.getvalue()


def save_dataset(folder: Path, shards: list[list[dict[str, Any]]]) -> Path:
    """As `datasets` lays a data set down in save_to_disk."""
    folder.mkdir()
    names = [f"data-{k:05}-of-{len(shards):05}.arrow" for k in range(len(shards))]
    for name, values in zip(names, shards, strict=True):
        table = pyarrow.Table.from_pylist(values)
        with pyarrow.ipc.new_stream(str(folder / name), table.schema) as out:
            out.write_table(table, max_chunksize=100)
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return folder


WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "a.tsv": as_tsv, "a.csv": as_csv, "a.jsonl": as_jsonl, "literal.jsonl": as_literals,
    "a.json": as_json, "a.parquet": as_parquet,
}  # fmt: skip
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress
}  # fmt: skip


def read(source: Any, skips: Skips | None = None, **options: Any) -> list[dict[str, Any]]:
    source = str(source) if isinstance(source, Path) else source
    return [row.values for row in read_rows(source, skips=skips, **options)]


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_and_compression_gives_the_same_rows(
    name: str, packer: str, mark: bytes, tmp_path: Path
) -> None:
    mark = b"" if name.endswith("parquet") else mark
    path = write(tmp_path / f"{name}{packer}", PACKERS[packer](mark + WRITERS[name](TEXTS)))
    assert read(path) == TEXTS
    assert read(path, fields={"zh": str, "en": str | int}) == TEXTS


@pytest.mark.parametrize("packer", PACKERS)
def test_a_saved_data_set_and_aligned_files_give_the_same_rows(packer: str, tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "saved", [TEXTS[:1], TEXTS[1:]])
    assert read(folder) == TEXTS
    assert [path.name[:10] for path in files_of(str(folder))] == ["data-00000", "data-00001"]
    files = {
        side: write(tmp_path / f"a.{side}{packer}", PACKERS[packer](
            "".join(f"{row[side]}\r\n" for row in TEXTS).encode())) for side in ("zh", "en")
    }  # fmt: skip
    source = {side: str(path) for side, path in files.items()}
    assert read(source) == TEXTS
    assert files_of(source) == list(files.values())
    assert [row.place for row in read_rows(source)][2] == f"{files['zh']}:3"


@pytest.mark.parametrize("name", ["a.jsonl", "literal.jsonl", "a.json", "a.parquet"])
def test_nested_values_keep_their_shape(name: str, tmp_path: Path) -> None:
    values = [
        {"id": 1, "answers": ["a", "b"], "translation": {"zh": "春", "en": "spring"}},
        {"id": 2, "answers": [], "translation": {"zh": "夏", "en": None}},
    ]
    path = write(tmp_path / name, WRITERS[name](values))
    assert read(path) == values
    skips = Skips("skip")
    assert read(path, skips, fields={"translation.en": str}) == values[:1]
    assert skips.counts == {"wrong type": 1}


def test_columns_name_those_of_a_table_without_a_header(tmp_path: Path) -> None:
    write(tmp_path / "a.tsv", '"\t\'\n\nHi.\t"嗨"\r\n')
    write(tmp_path / "b.csv", '"""","a\nb"\n')
    found = list(read_rows(str(tmp_path), ["en", "zh"]))
    assert [row.values["en"] for row in found] == ['"', "Hi.", '"']
    assert [row.values["zh"] for row in found] == ["'", '"嗨"', "a\nb"]
    places = [row.place.removeprefix(f"{tmp_path}/") for row in found]
    assert places == ["a.tsv:1", "a.tsv:3", "b.csv:1"]


def test_python_literals_are_told_once_per_file(tmp_path: Path) -> None:
    lines = ["{'text': 'it\\'s \\d'}", '{"text": "b"}', "{'text': 'c', 'none': None}"]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    told: list[tuple[str, str]] = []
    found = read(path, note=lambda *told_of: told.append(told_of))
    assert found == [{"text": "it's \\d"}, {"text": "b"}, {"text": "c", "none": None}]
    assert [kind for kind, _ in told] == ["Python literals"]
    assert f"{path} holds Python literals" in told[0][1]


@pytest.mark.parametrize(
    "line",
    ["{'text': open('/etc/passwd')}", "{'text': __import__('os')}", "{[]: 1}", "{'a'}", "{1: 'a'}",
     "{'a': " + "[" * 5000 + "]" * 5000 + "}", "{'a': " + "-" * 50000 + "1}", "{'a': 'b'", "'a'"],
)  # fmt: skip
def test_what_is_neither_json_nor_a_plain_object_is_broken(line: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", line)
    with pytest.raises(ValueError, match=r"a\.jsonl:1 is broken JSON"):
        read(path)


LIST = b'[{"a": "1"}, '


@pytest.mark.parametrize(
    ("name", "content", "match", "kind"),
    [
        ("a.tsv", b"a\n1\n\xff\n", r"a\.tsv:3 holds the byte 0xff", "not UTF-8"),
        ("a.tsv", b"a\n1\nx\ty\n", r":3 has too many fields, 2 where 1 belong \(a\)",
         "too many fields"),
        ("a.csv", b"a\n1\nx,y\n", r":3 has too many fields", "too many fields"),
        ("a.csv", b'a\n1\n"x"y\n', r"a\.csv:3 is broken CSV", "broken CSV"),
        ("a.csv", b"a\n1\n\xff\n", r"a\.csv:3 holds the byte 0xff", "not UTF-8"),
        ("a.jsonl", b'{"a": "1"}\n\n{"a": \n', r"a\.jsonl:3 is broken JSON", "broken JSON"),
        ("a.jsonl", b'{"a": "1"}\n[2]\n', r"a\.jsonl:2 is no JSON object", "broken JSON"),
        ("a.jsonl", b'{"a": "1"}\n{"a": "\xff"}\n', r"a\.jsonl:2 is not UTF-8", "not UTF-8"),
        ("a.jsonl", b'{"a": "1"}\n{"a": ["\\ud800"]}\n', r"a\.jsonl:2 is not UTF-8", "not UTF-8"),
        ("a.jsonl", b"{'a': '1'}\n{'a': {'\\ud800': 1}}\n", r":2 is not UTF-8", "not UTF-8"),
        ("a.jsonl", b'{"a": "1"}\n{"b": "2"}\n', r":2: there is no column 'a' \(there are 'b'\)",
         "missing field"),
        ("a.jsonl", b'{"a": "1"}\n{"a": 2}\n', r":2: a is int; it must be str", "wrong type"),
        ("a.json", LIST + b"[2]]", r"a\.json:2 is no JSON object", "broken JSON"),
        ("a.json", LIST + b'{"a": "\\udfff"}]', r"a\.json:2 holds half a surr", "not UTF-8"),
        ("a.json", LIST + b'{"aa": "2"}]', r"a\.json:2: .* did you mean 'aa'\?", "missing field"),
        ("a.json", LIST + b'{"a": null}]', r"a\.json:2: a is NoneType", "wrong type"),
    ],
)  # fmt: skip
def test_a_faulty_row_is_named_and_can_be_skipped(
    name: str, content: bytes, match: str, kind: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=match):
        read(path, fields={"a": str})
    skips = Skips("skip")
    assert read(path, skips, fields={"a": str}) == [{"a": "1"}]
    assert skips.counts == {kind: 1}


@pytest.mark.parametrize("suffix", [".tsv", ".csv"])
def test_a_row_with_too_few_fields_is_named(suffix: str, tmp_path: Path) -> None:
    cut = "\t" if suffix == ".tsv" else ","
    path = write(tmp_path / f"a{suffix}", f"1{cut}2\n3\n4{cut}5\n")
    with pytest.raises(ValueError, match=r":2 has too few fields, 1 where 2 belong \(a, b\); mend"):
        read(path, columns=["a", "b"])
    skips = Skips("skip")
    assert read(path, skips, columns=["a", "b"]) == [{"a": "1", "b": "2"}, {"a": "4", "b": "5"}]
    assert skips.counts == {"too few fields": 1}


@pytest.mark.parametrize(
    ("content", "match", "kind"),
    [
        (b'{"a": 1}\n{"a": 2}\n', r"a\.json:2 is broken JSON .*rename the file to \.jsonl",
         "broken JSON"),
        (b'{"rows": []}', r"a\.json holds no array but dict; write an array", "broken JSON"),
        (b'[{"a":\n"\xff"}]', r"a\.json:2 is not UTF-8", "not UTF-8"),
        (b"[" * 100000, r"a\.json is broken JSON", "broken JSON"),
    ],
)  # fmt: skip
def test_an_array_that_cannot_be_parsed_is_named(
    content: bytes, match: str, kind: str, tmp_path: Path
) -> None:
    path, skips = write(tmp_path / "a.json", content), Skips("skip")
    with pytest.raises(ValueError, match=match):
        read(path)
    assert read(path, skips) == []
    assert skips.counts == {kind: 1}


@pytest.mark.parametrize("packer", ["", ".gz"])
def test_an_array_too_large_is_refused(
    packer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_rows, "LARGEST_ARRAY", 1 << 20)
    path = write(tmp_path / f"a.json{packer}", PACKERS[packer](b" " * (3 << 20) + b"[]"))
    with pytest.raises(ValueError, match=r"more than 1 MB, .* write it as \.jsonl or \.parquet"):
        read(path, Skips("skip"))


def test_a_line_beyond_the_limit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LONGEST_LINE", 1 << 20)
    path = write(tmp_path / "a.tsv", "a\n1\n" + "x" * (2 << 20) + "\n2\n")
    with pytest.raises(ValueError, match=r"a\.tsv:3 is longer than 1 MB; break the line up"):
        read(path)
    skips = Skips("skip")
    assert read(path, skips) == [{"a": "1"}, {"a": "2"}]
    assert skips.counts == {"line too long": 1}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.json"])
@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_utf_16_is_refused_by_name(mark: bytes, name: str, packer: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"{name}{packer}", PACKERS[packer](mark + b"\0a\0\n"))
    for source in (path, {"a": str(path)}):
        with pytest.raises(ValueError, match=r"a\.\S+ is UTF-16 and must be UTF-8; convert it"):
            read(source, Skips("skip"))


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.tsv", b"\xff\tb\n1\t2\n", r"a\.tsv:1 holds the byte 0xff"),
        ("a.csv", b'"a"b,c\n1,2\n', r"a\.csv:1 is broken CSV"),
        ("a.csv", b"a,b,a\n1,2,3\n", r"a\.csv:1 names the column 'a' twice; rename one"),
    ],
)
def test_a_table_whose_header_is_faulty_is_refused(
    name: str, content: bytes, match: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=match):
        read(path, Skips("skip"))  # no line of data is taken for the header


def test_columns_that_do_not_fit_the_source_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "a\tb\n1\t2\n")
    with pytest.raises(ValueError, match=r"a\.tsv:1 is a header with the names in columns; leave"):
        read(path, columns=["a", "b"])
    with pytest.raises(ValueError, match=r"columns \(\['a', 'a'\]\) must be different names"):
        read(path, columns=["a", "a"])
    with pytest.raises(ValueError, match=r"columns .* named by the mapping already; leave"):
        read({"a": str(path)}, columns=["a"])
    path = write(tmp_path / "a.jsonl", '{"a": 1}')
    with pytest.raises(ValueError, match=r"are for \.tsv and \.csv .* holds neither; leave"):
        read(path, columns=["a"])


def test_aligned_files_must_have_equally_many_lines(tmp_path: Path) -> None:
    source = {"zh": str(write(tmp_path / "a.zh", "1\n2\n3")), "en": str(tmp_path / "a.en")}
    write(tmp_path / "a.en", "1\n2\n3\n\n")
    with pytest.raises(ValueError, match=r"equally many lines; \S+a\.zh has 3, \S+a\.en has 4"):
        next(read_rows(source, skips=Skips("skip")))
    write(tmp_path / "a.en", b"1\n\xff\n\n")
    with pytest.raises(ValueError, match=r"a\.en:2 holds the byte 0xff"):
        read(source)
    skips = Skips("skip")
    assert read(source, skips) == [{"zh": "1", "en": "1"}, {"zh": "3", "en": ""}]
    assert skips.counts == {"not UTF-8": 1}


@pytest.mark.parametrize("as_dataset", [False, True])
def test_text_in_arrow_that_is_not_utf_8_costs_its_row(as_dataset: bool, tmp_path: Path) -> None:
    parts = [None, pyarrow.py_buffer(array("i", [0, 1, 3, 4])), pyarrow.py_buffer(b"a\xffbc")]
    table = pyarrow.table({"a": pyarrow.Array.from_buffers(pyarrow.string(), 3, parts)})
    if as_dataset:
        folder = save_dataset(tmp_path / "saved", [[{"a": "x"}]])
        with pyarrow.ipc.new_stream(str(*files_of(str(folder))), table.schema) as out:
            out.write_table(table)
    else:
        folder = tmp_path / "a.parquet"
        parquet.write_table(table, folder)
    with pytest.raises(ValueError, match=r"(arrow|parquet):2 holds text that is not UTF-8"):
        read(folder)
    skips = Skips("skip")
    assert read(folder, skips) == [{"a": "a"}, {"a": "c"}]
    assert skips.counts == {"not UTF-8": 1}


@pytest.mark.parametrize("name", ["a.tsv.gz", "a.jsonl.zst", "a.json.gz", "a.parquet", "saved"])
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    values = [{"a": f"{k * k}"} for k in range(5000)]
    if name == "saved":
        path = save_dataset(tmp_path / name, [values])
        (file,) = files_of(str(path))
    else:
        file = path = tmp_path / name
        plain = name.removesuffix(".gz").removesuffix(".zst")
        write(path, PACKERS.get(path.suffix, bytes)(WRITERS[plain](values)))
    write(file, file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"(cannot be read to its end|is damaged) \("):
        read(path)
    skips = Skips("skip")
    read(path, skips)
    assert skips.counts == {"damaged file": 1}
    if name.endswith("tsv.gz"):
        with pytest.raises(ValueError, match=r"a\.tsv\.gz cannot be read to its end"):
            read({"a": str(path)}, Skips("skip"))


def test_missing_and_empty_sources_are_named_at_once(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", "a\n")
    (tmp_path / "empty").mkdir()
    endings = r"ends in \.tsv \.csv \.jsonl \.json \.parquet \.conll"
    for source, match in {
        "trian.tsv": r"trian\.tsv does not exist; did you mean \S+train\.tsv\?",
        "trian*.tsv": rf"matches no file that {endings}; did you mean \S+train\.tsv\?",
    }.items():
        with pytest.raises(FileNotFoundError, match=match):
            read_rows(str(tmp_path / source))
    with pytest.raises(ValueError, match=rf"empty holds no file that {endings}; name another"):
        read_rows(str(tmp_path / "empty"))
    path = write(tmp_path / "a.txt", "a")
    with pytest.raises(ValueError, match=r"a\.txt must end in one of \.tsv .*; rename it"):
        read_rows(str(path))
    with pytest.raises(FileNotFoundError, match=r"a\.tx, named by column a, does not exist; did"):
        read_rows({"a": str(tmp_path / "a.tx")})
    with pytest.raises(ValueError, match=r"empty, named by column a, is a folder; name a file"):
        read_rows({"a": str(tmp_path / "empty")})
    for nothing in ([], {}):
        with pytest.raises(ValueError, match="is empty; name a file"):
            read_rows(nothing)  # type: ignore[arg-type]


def test_a_saved_data_set_with_splits_or_without_its_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(ValueError, match=r"holds several splits; name one of \S+train, \S+test"):
        read_rows(str(tmp_path))
    folder = save_dataset(tmp_path / "train", [TEXTS, TEXTS])
    files_of(str(folder))[0].unlink()
    with pytest.raises(FileNotFoundError, match=r"data-00000\S+, named by \S+state\.json, does no"):
        read_rows(str(folder))


def test_several_sources_are_read_one_after_the_other_and_each_file_once(tmp_path: Path) -> None:
    for name in ("b.tsv", "a.tsv"):
        write(tmp_path / name, f"file\n{name}\n")
    saved = save_dataset(tmp_path / "saved", [[{"file": "saved"}]])
    sources = [str(tmp_path / "b.tsv"), str(saved), f"{tmp_path}/*.tsv"]
    assert [row["file"] for row in read(sources)] == ["b.tsv", "saved", "a.tsv"]
    assert len(files_of(sources)) == 3


@pytest.mark.parametrize("name", ["a.tsv", "a.jsonl", "a.parquet", "saved"])
def test_memory_does_not_grow_with_the_rows(name: str, tmp_path: Path) -> None:
    values = [{"a": f"{k} " + "春眠不覺曉" * 200} for k in range(10_000)]
    if name == "saved":
        path = save_dataset(tmp_path / name, [values])
    else:
        path = write(tmp_path / name, WRITERS[name](values))
    assert len(list(islice(read_rows(str(path)), 5))) == 5
    del values
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_rows(str(path))) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
