"""A checkpoint file is whole or not there, and a changed byte is seen."""

import os
import random
import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from gpt4o_lit.callbacks.checkpoint_files import CheckpointFiles, Keeping
from gpt4o_lit.interop.checkpoint_file import seal, write_file
from gpt4o_lit.interop.checkpoints import (
    give_name,
    load_checkpoint,
    newest_before,
    require_intact,
    step_file,
)
from gpt4o_lit.run_directory import kept_steps

OLD, NEW = ({"step": step, "weights": torch.arange(40.0) + step} for step in (1, 2))


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """The system lets no file grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def keeping(step: int, last: int = 2, best: tuple[Path, ...] = ()) -> Keeping:
    return Keeping(step=step, last=last, best=list(best), config=Path("nowhere"))


def save(folder: Path, step: int, **kept: object) -> str | None:
    files = CheckpointFiles()
    file = step_file(folder, step)
    files.save_checkpoint({"step": step}, file, keeping(step, **kept))  # type: ignore[arg-type]
    return files.wait()


def test_what_is_written_is_read_by_us_by_torch_and_as_a_zip(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    write_file(NEW, file)
    for saved in (load_checkpoint(file), load_checkpoint(file, mmap=False), torch.load(file)):
        assert torch.equal(saved["weights"], NEW["weights"])
    with zipfile.ZipFile(file) as opened:
        assert opened.comment.startswith(b"sha256:")
        assert opened.testzip() is None


def test_an_error_at_any_byte_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    write_file(OLD, file)
    before = file.read_bytes()
    for size in range(len(before)):
        with files_end_at(size), pytest.raises(OSError, match="File too large"):
            write_file(NEW, file)
        assert file.read_bytes() == before
        assert list(tmp_path.iterdir()) == [file]
    with files_end_at(len(before)):
        write_file(NEW, file)
    assert load_checkpoint(file)["step"] == 2


def test_flipped_bits_and_cut_ends_are_found_and_named(tmp_path: Path) -> None:
    file, draws = tmp_path / "a.ckpt", random.Random(0)
    write_file(NEW, file)
    whole = file.read_bytes()
    seals = [(place, 1 << draws.randrange(8)) for place in range(len(whole) - 96, len(whole))]
    flips = [(draws.randrange(len(whole)), 1 << draws.randrange(8)) for _ in range(50)]
    for place, bit in seals + flips:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"a\.ckpt is damaged.*--resume_from previous"):
            load_checkpoint(file)
    ends = [0, 1, 21, 22, *range(len(whole) - 80, len(whole))]
    for size in ends + draws.sample(range(len(whole)), 50):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"a\.ckpt is damaged"):
            require_intact(file)


def test_what_torch_has_saved_is_read_and_can_be_sealed(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    torch.save(NEW, file)
    assert load_checkpoint(file)["step"] == 2
    seal(file)
    assert load_checkpoint(file)["step"] == 2
    assert b"sha256:" in file.read_bytes()[-80:]


def test_the_newest_and_the_best_are_kept_and_what_a_kill_left_goes(tmp_path: Path) -> None:
    best = step_file(tmp_path, 1)
    for step in (1, 2, 3, 4):
        (tmp_path / "step_9.ckpt.part").write_bytes(b"left")
        assert save(tmp_path, step, best=(best,)) is None
        assert not list(tmp_path.glob("*.part"))
    assert list(kept_steps(tmp_path)) == [4, 3, 1]
    assert (tmp_path / "last.ckpt").samefile(step_file(tmp_path, 4))
    assert (tmp_path / "best.ckpt").samefile(best)
    assert save(tmp_path, 3) is None  # the run has gone back
    assert list(kept_steps(tmp_path)) == [3, 1]
    assert load_checkpoint(tmp_path / "best.ckpt")["step"] == 1


def test_one_goes_back_past_the_damaged(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, last=3)
    damaged = step_file(tmp_path, 2)
    damaged.write_bytes(damaged.read_bytes()[:-5])
    assert newest_before(tmp_path / "last.ckpt") == (step_file(tmp_path, 1), [damaged])
    (tmp_path / "step_1.ckpt").unlink()
    with pytest.raises(FileNotFoundError, match="no intact checkpoint before"):
        newest_before(tmp_path / "last.ckpt")


def test_a_failed_save_is_told_and_takes_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1, last=1)
    with files_end_at(500):
        assert "File too large" in str(save(tmp_path, 2, last=1))
    assert list(kept_steps(tmp_path)) == [1]
    assert load_checkpoint(tmp_path / "last.ckpt")["step"] == 1
    assert not list(tmp_path.glob("*.part"))


def test_want_of_room_is_seen_before_a_byte_is_written(tmp_path: Path) -> None:
    sparse, size = tmp_path / "sparse", 2 * os.statvfs(tmp_path).f_bavail * 4096
    with sparse.open("wb") as file:
        file.truncate(size)
    weights = torch.from_file(str(sparse), shared=True, size=size, dtype=torch.uint8)
    with pytest.raises(OSError, match=r"No space left on device: .* MB are needed and"):
        CheckpointFiles().save_checkpoint({"weights": weights}, tmp_path / "a.ckpt")
    assert list(tmp_path.iterdir()) == [sparse]


def test_an_asynchronous_save_holds_the_moment_at_which_it_began(tmp_path: Path) -> None:
    files, weights = CheckpointFiles(), torch.zeros(1000)
    files.asynchronous = True
    files.save_checkpoint({"a": weights, "b": weights[5:]}, step_file(tmp_path, 1), keeping(1))
    weights.fill_(1.0)
    assert files.wait() is None
    saved = load_checkpoint(tmp_path / "last.ckpt")
    assert not saved["a"].any()
    assert saved["a"].untyped_storage().data_ptr() == saved["b"].untyped_storage().data_ptr()


def test_a_name_is_copied_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    save(tmp_path, 1)
    assert load_checkpoint(tmp_path / "last.ckpt")["step"] == 1
    give_name(step_file(tmp_path, 1), tmp_path / "last.ckpt")
    assert not list(tmp_path.glob("*.part"))
