"""Readers: the same documents out of every format, and mistakes named by file and line."""

import csv
import gzip
import io
import json
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from gpt4o_lit.corpus import CorpusConfig, blocks, delimited, documents, formats
from gpt4o_lit.corpus.documents import Skips, read_documents
from gpt4o_lit.corpus.route import Router
from gpt4o_lit.corpus.sources import list_files

TEXTS = ["one", 'two\nlines, with "quotes"', "春眠不覺曉 😀", "  spaces  and\ttabs ", "last"]


def as_jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"n": 1, "text": text}) + "\n" for text in texts).encode()


def as_csv(texts: list[str]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("n", "text"), *((k, text) for k, text in enumerate(texts))])
    return out.getvalue().encode()


def as_parquet(texts: list[str]) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pyarrow.table({"n": list(range(len(texts))), "text": texts}), out)
    return out.getvalue()


def as_blank_lines(texts: list[str]) -> bytes:
    return "\n\n".join(texts).encode()


WRITERS: dict[str, Callable[[list[str]], bytes]] = {
    ".jsonl": as_jsonl, ".csv": as_csv, ".parquet": as_parquet,
    ".txt": as_blank_lines, ".md": as_blank_lines,
}  # fmt: skip
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress
}  # fmt: skip


def read(path: Path, on_error: str = "raise", **options: str) -> tuple[list[str], Skips]:
    skips = Skips(on_error)  # type: ignore[arg-type]
    kind, field = options.get("documents", "file"), options.get("text_field", "text")
    found = []
    for file in list_files({"": [str(path)]}):
        for each in read_documents(file, kind, field, skips, lambda _: None):  # type: ignore[arg-type]
            found.append(b"".join(each.pieces()).decode())
            assert each.num_chars == len(found[-1])
            assert each.digest == documents.digest_of(found[-1].encode())
    return found, skips


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_and_compression_gives_the_same_documents(
    suffix: str, packer: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a{suffix}{packer}"
    path.write_bytes(PACKERS[packer](WRITERS[suffix](TEXTS)))
    assert read(path, documents="blank_line")[0] == TEXTS


@pytest.mark.parametrize("packer", PACKERS)
def test_a_quote_in_a_tsv_is_a_sign_like_any_other(packer: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.tsv{packer}"
    path.write_bytes(PACKERS[packer]('n\ttext\r\n1\t"a\r\n2\t春 ""\r\n'.encode()))
    assert read(path)[0] == ['"a', '春 ""']


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("name", ["a.txt", "a.py"])
def test_a_file_is_one_document_with_all_its_signs(name: str, packer: str, tmp_path: Path) -> None:
    text = "\r\n\n a\tb\r\n春\n\n"
    path = tmp_path / f"{name}{packer}"
    path.write_bytes(PACKERS[packer](text.encode()))
    assert read(path)[0] == [text]


@pytest.mark.parametrize("line", ["春眠\n", "春", "a\n\n", "x"])
def test_a_large_file_is_the_same_document_read_in_blocks(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "LARGE", 100)
    monkeypatch.setattr(blocks, "BLOCK", 64)
    path = tmp_path / "a.txt"
    path.write_text(line * 300, encoding="utf-8")
    (file,) = list_files({"": [str(path)]})
    (document,) = read_documents(file, "file", "text", Skips(), lambda _: None)
    assert len(list(document.pieces())) > 3
    assert read(path)[0] == [line * 300]


def test_an_undecodable_byte_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\n" * 40 + b"br\xffken\nfine\n")
    for large in (1 << 20, 100):  # in one go, and in blocks
        monkeypatch.setattr(documents, "LARGE", large)
        monkeypatch.setattr(blocks, "BLOCK", 64)
        with pytest.raises(ValueError, match=r"a\.txt:41 holds the byte 0xff"):
            read(path)
        assert read(path, "skip") == ([], Skips("skip", {"not UTF-8": 1}))  # type: ignore[arg-type]
    found, skips = read(path, "skip", documents="line")
    assert (found, skips.counts) == (["fine"] * 41, {"not UTF-8": 1})


@pytest.mark.parametrize(
    ("name", "content", "match", "kind"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', r"a\.jsonl:2 is broken JSON", "broken JSON"),
        ("a.jsonl", b'{"text": "a"}\n\n[1]\n', r"a\.jsonl:3 is no JSON object", "broken JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', r":2 has no field 'text' \(it has 'txt'\)",
         "missing field"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 3}\n', r"a\.jsonl:2: text is int", "not text"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', r"a\.jsonl:2 is not UTF-8", "not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\\ud800"}\n', r":2: text holds half", "not UTF-8"),
        ("a.csv", b"n,text\n1,a\n2,\xff\n", r"a\.csv:3 holds the byte 0xff", "not UTF-8"),
        ("a.csv", b'n,text\n2,"b\nb\xff\nb"\n1,a\n', r"a\.csv:3 holds the byte 0xff", "not UTF-8"),
        ("a.csv", b'n,text\n1,a\n2,"b"b\n', r"a\.csv:3 is broken CSV", "broken CSV"),
        ("a.csv", b'n,text\n1,a\n2,"b\n', r"a\.csv:3 is broken CSV", "broken CSV"),
        ("a.tsv", b"n\ttext\n1\ta\n2\t\xff\n", r"a\.tsv:3 holds the byte 0xff", "not UTF-8"),
        ("a.tsv", b"n\ttext\n2\n1\ta\n", r"a\.tsv:2 has 1 of 2 fields, no text", "missing field"),
        ("a.csv", b"n,text\n2\n1,a\n", r"a\.csv:2 has 1 of 2 fields, no text", "missing field"),
        ("a.jsonl", b'{"text": "a"}\n' + b"[" * 5000 + b"]" * 5000, r":2 is broken JSON \(maximum",
         "broken JSON"),
    ],
)  # fmt: skip
def test_a_broken_row_is_named_and_can_be_skipped(
    name: str, content: bytes, match: str, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match):
        read(path)
    found, skips = read(path, "skip")
    assert (found, skips.counts) == (["a"], {kind: 1})


def test_a_broken_csv_row_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('n,text\n1,a\n2,"he said "hi" to me"\n3,c\n4,d\n')
    with pytest.raises(ValueError, match=r"a\.csv:3 is broken CSV \(',' expected after '\"'\)"):
        read(path)
    assert read(path, "skip") == (["a", "c", "d"], Skips("skip", {"broken CSV": 1}))  # type: ignore[arg-type]


@pytest.mark.parametrize("last", ["", '5000,"e"\n'])  # unto the end, and unto the next quote
def test_a_stray_quote_gathers_no_rows(last: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('n,text\n1,"a\n' + "".join(f"{k},t{k}\n" for k in range(2, 5000)) + last)
    found, skips = read(path, "skip")
    assert found == [f"t{k}" for k in range(2, 5000)] + ["e"] * bool(last)
    assert skips.counts == {"broken CSV": 1}


def test_a_csv_field_without_end_is_cut_off_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "LONGEST_FIELD", 1000)
    path = tmp_path / "a.csv"
    path.write_text('n,text\n1,"a\n' + "".join(f"{k},t{k}\n" for k in range(2, 5000)) + '"\n')
    with pytest.raises(ValueError, match=r"a\.csv:2-\d\d\d is broken CSV \(field larger"):
        read(path)
    found, skips = read(path, "skip")
    assert found == [f"t{k}" for k in range(2, 5000)]
    assert skips.counts["broken CSV"] == 2  # the quote at the start, and the one at the end


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_line_beyond_the_limit_is_named_and_can_be_skipped(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "LONGEST_LINE", 1 << 20)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(WRITERS[suffix](["one", "x" * (3 << 20), "last"]))
    with pytest.raises(ValueError, match=r"a\.\w+:\d is longer than 1 MB; break the line up"):
        read(path)
    found, skips = read(path, "skip")
    assert (found, skips.counts) == (["one", "last"], {"line too long": 1})


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".parquet"])
def test_large_documents_among_small_ones_come_in_blocks(
    suffix: str, packer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "LARGE", 100)
    monkeypatch.setattr(blocks, "BLOCK", 64)
    long = ["春眠不覺曉\n" * 40, "x" * 700, "a\nb\r\n" * 100, "春" * 100]
    texts = [text.rstrip("\r\n") for text in ["one", long[0], "two", *long[1:], "last"]]
    path = tmp_path / f"a{suffix}{packer}"
    path.write_bytes(PACKERS[packer](WRITERS[suffix](texts)))
    assert read(path, documents="blank_line")[0] == texts
    (file,) = list_files({"": [str(path)]})
    whole = list(read_documents(file, "blank_line", "text", Skips(), lambda _: None))
    assert [each.text is None for each in whole] == [len(text.encode()) > 100 for text in texts]
    # Each call reads anew, also behind the others.
    if suffix != ".txt":
        assert [b"".join(each.pieces()).decode() for each in whole] == texts


def test_a_long_line_of_a_text_is_a_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "LARGE", 10)
    texts = ["短", "春眠不覺曉" * 30, "x" * 9, "y" * 10, "z" * 11, "處處" * 9]
    path = tmp_path / "a.txt"
    path.write_bytes("\r\n".join(texts).encode() + b"\n" + b"q" * 50 + b"\xe6\n")
    found, skips = read(path, "skip", documents="line")
    assert (found, skips.counts) == (texts, {"not UTF-8": 1})
    with pytest.raises(ValueError, match=r"a\.txt:7 holds the byte 0xe6"):
        read(path, documents="line")


def test_invalid_utf8_in_a_parquet_column_is_named_and_can_be_skipped(tmp_path: Path) -> None:
    for kind, code in (("string", "i"), ("large_string", "q")):
        offsets = array(code, [0, 1, 3, 4]).tobytes()
        parts = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(b"a\xffbc")]
        column = pyarrow.Array.from_buffers(getattr(pyarrow, kind)(), 3, parts)
        parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
        with pytest.raises(ValueError, match=r"a\.parquet:2: text holds the byte 0xff"):
            read(tmp_path / "a.parquet")
        found, skips = read(tmp_path / "a.parquet", "skip")
        assert (found, skips.counts) == (["a", "c"], {"not UTF-8": 1})


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_missing_column_names_those_there_are(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(WRITERS[suffix](TEXTS))
    with pytest.raises(ValueError, match=r"no field 'body' \(it has 'n', 'text'\)"):
        read(path, text_field="body")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    suffix, packer = name[1:].removesuffix(".gz").removesuffix(".zst"), path.suffix
    data = PACKERS.get(packer, bytes)(WRITERS[suffix]([str(k) * 40 for k in range(5000)]))
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"a\.\S+ (cannot be read|is damaged)"):
        read(path)
    assert read(path, "skip")[1].counts == {"damaged file": 1}


def test_missing_and_empty_sources_are_named(tmp_path: Path) -> None:
    (tmp_path / "wikitext").mkdir()
    for source, match in {
        "wikitxt": r"wikitxt does not exist; did you mean .*wikitext\?",
        "*.txt": r"glob .* matches no file",
    }.items():
        with pytest.raises(FileNotFoundError, match=match):
            list_files({"": [str(tmp_path / source)]})
    with pytest.raises(ValueError, match=r"folder .*wikitext holds no file that ends in \.txt"):
        list_files({"": [str(tmp_path / "wikitext")]})
    (tmp_path / "a.pdf").touch()
    with pytest.raises(ValueError, match=r"a\.pdf must end in one of"):
        list_files({"": [str(tmp_path / "a.pdf")]})


def test_folders_globs_and_files_name_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("z.txt", "a.md", "b/c.jsonl.gz", "b/skipped.bin"):
        (tmp_path / name).touch()
    by_folder = [file.path for file in list_files({"": [str(tmp_path)]})]
    assert [Path(path).name for path in by_folder] == ["a.md", "c.jsonl.gz", "z.txt"]
    assert by_folder == [file.path for file in list_files({"": [f"{tmp_path}/**/*"]})]
    twice = list_files({"": [str(tmp_path), str(tmp_path / "z.txt")]})
    assert [file.path for file in twice] == by_folder


def test_the_standard_library_is_a_source_and_quickly_listed() -> None:
    files = list_files({"": ["python-stdlib"]})
    names = {file.name for file in files}
    assert {"python-stdlib/argparse.py", "python-stdlib/pydoc_data/topics.py"} <= names
    assert not any("site-packages" in name or "/test/" in name for name in names)
    known = [vars(file) for file in files]
    start = time.perf_counter()
    assert list_files({"": ["python-stdlib"]}, known) == files
    assert time.perf_counter() - start < 1.0


def routed(config: CorpusConfig, files: dict[str, list[str]]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for piece in Router(config, list_files(files)).pieces(lambda _: None):
        assert piece.opens
        assert piece.closes
        texts[piece.split].append(piece.text.decode())
    return texts


def test_a_document_keeps_its_split_when_others_come(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"line {k}" for k in range(2000)))
    (tmp_path / "b.txt").write_text("\n".join(f"line {k}" for k in range(1000, 3000)))
    config = CorpusConfig(sources=["-"], documents="line", valid_fraction=0.1, test_fraction=0.2)
    alone = routed(config, {"": [str(tmp_path / "a.txt")]})
    both = routed(config, {"": [str(tmp_path / "b.txt"), str(tmp_path / "a.txt")]})
    for split, share in {"train": 0.7, "valid": 0.1, "test": 0.2}.items():
        assert set(alone[split]) <= set(both[split])
        assert len(both[split]) / 3000 == pytest.approx(share, abs=0.03)
    assert sum(map(len, both.values())) == 3000  # the 1000 lines that are in both come once


def test_train_loses_what_valid_sources_hold(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree")
    (tmp_path / "v.txt").write_text("two\ntwo")
    config = CorpusConfig(sources=["-"], valid_sources=["-"], documents="line")
    files = {"valid": [str(tmp_path / "v.txt")], "": [str(tmp_path / "a.txt")]}
    assert routed(config, files) == {"train": ["one", "three"], "valid": ["two", "two"], "test": []}


@pytest.mark.parametrize("in_blocks", [False, True])
def test_a_split_by_position_cuts_at_exact_characters(
    in_blocks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_blocks:
        monkeypatch.setattr(documents, "LARGE", 50)
        monkeypatch.setattr(blocks, "BLOCK", 32)
    text = "".join(chr(0x4E00 + k) + ("\n" if k % 7 == 0 else "") for k in range(1003))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    config = CorpusConfig(sources=["-"], split="position", valid_fraction=0.1, test_fraction=0.1)
    parts = {"train": "", "valid": "", "test": ""}
    flags = {"train": [0, 0], "valid": [0, 0], "test": [0, 0]}
    for piece in Router(config, list_files({"": [str(tmp_path)]})).pieces(lambda _: None):
        parts[piece.split] += piece.text.decode()
        flags[piece.split][0] += piece.opens
        flags[piece.split][1] += piece.closes
    n = len(text)
    assert parts["train"] == text[: int(n * 0.8)]
    assert parts["valid"] == text[int(n * 0.8) : int(n * 0.9)]
    assert parts["test"] == text[int(n * 0.9) :]
    assert flags == {"train": [1, 1], "valid": [1, 1], "test": [1, 1]}
