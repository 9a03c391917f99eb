"""The file of the weights: the same bytes and hash through the page cache and past it."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dfcompiler.codegen import stream
from dfcompiler.codegen.stream import HashedFile


def _is_written(path: Path, sizes: tuple[int, ...], expected: int) -> bool:
    """Whether a file holds what was appended in pieces of these sizes."""
    rng, parts = np.random.default_rng(1), []
    with HashedFile(path, expected) as file:
        for size in sizes:
            parts.append(rng.integers(0, 256, size, np.uint8))
            file.append(parts[-1])
            file.pad(-(-file.bytes // 64) * 64)
            parts.append(np.zeros(-size % 64, np.uint8))
    wanted = np.concatenate(parts).tobytes()
    assert file.bytes == len(wanted)
    assert file.sha256() == hashlib.sha256(wanted).hexdigest()
    return path.read_bytes() == wanted


def _never_slow(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(stream, "_LEAST_BYTES_PER_S", 0.0)


def _slow_after_one_write(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(stream, "_PROBE_BYTES", 1)
    patch.setattr(stream, "_LEAST_BYTES_PER_S", 1e15)


def _unknown_flag(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(os, "O_DIRECT")


@pytest.mark.parametrize("disk", [_never_slow, _slow_after_one_write, _unknown_flag])
@pytest.mark.parametrize("sizes", [(), (1,), (4 << 20,), (5, 9 << 20, 12345, 64), (4096,) * 3])
def test_past_the_page_cache_the_bytes_are_the_same(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sizes: tuple[int, ...],
    disk: Callable[[pytest.MonkeyPatch], None],
) -> None:
    disk(monkeypatch)
    monkeypatch.setattr(stream, "PAST_CACHE_FROM", 1)
    sizes = sizes or (0,)
    assert _is_written(tmp_path / "file", sizes, sum(sizes) + 1)


def test_through_the_page_cache(tmp_path: Path) -> None:
    assert _is_written(tmp_path / "file", (3, 5 << 20, 100), 6 << 20)


def test_a_full_disk_is_an_error() -> None:
    with pytest.raises(OSError, match="No space left"), HashedFile(Path("/dev/full"), 1) as file:
        file.append(np.ones(9 << 20, np.uint8))


def test_a_file_that_is_given_up_raises_what_went_wrong_first(tmp_path: Path) -> None:
    def give_up() -> None:
        with HashedFile(tmp_path / "file", 1) as file:
            file.append(np.ones(5 << 20, np.uint8))
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        give_up()
