"""A large file that is written and hashed in the background while its contents are made."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

_PIECE_BYTES = 4 << 20
_PIECES = 3
"""One that is filled, one that is written and hashed, one that waits."""
_BLOCK = 4096
"""What memory, offsets and sizes are multiples of in a write past the page cache."""
PAST_CACHE_FROM = 1 << 30
"""Files of this many bytes are written past the page cache."""
_PROBE_BYTES = 64 << 20
_LEAST_BYTES_PER_S = 250e6


class HashedFile:
    """A new file; what is appended is copied into pieces, which two threads write and hash.

    A file of a gigabyte or more is written past the page cache: each page that the cache takes
    costs a first touch of memory, several times what the disk takes for it. Where the file system
    cannot do that, or the disk turns out slow, the cache takes the rest.

    Attributes:
        bytes: how many were appended.
    """

    def __init__(self, path: Path, expected: int) -> None:
        self.bytes = 0
        self._path = path
        self._digest = hashlib.sha256()
        self._pieces = [_Piece() for _ in range(_PIECES)]
        self._filled = 0
        self._past_cache = expected >= PAST_CACHE_FROM
        self._speed = _Speed()

    def __enter__(self) -> HashedFile:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        self._past_cache = self._past_cache and self._direct(True)
        self._workers = [ThreadPoolExecutor(1) for _ in range(2)]
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            for worker in self._workers:
                worker.shutdown()
            os.close(self._file)
        if kind is None:
            for piece in self._pieces:
                piece.wait()

    def append(self, data: np.ndarray) -> None:
        """Bytes, as a vector of them, at the end of the file."""
        at = 0
        while at < len(data):
            piece = self._pieces[0]
            piece.wait()
            count = min(len(data) - at, _PIECE_BYTES - self._filled)
            piece.array[self._filled : self._filled + count] = data[at : at + count]
            self._filled, at = self._filled + count, at + count
            self.bytes += count
            if self._filled == _PIECE_BYTES:
                self._flush()

    def pad(self, offset: int) -> None:
        """Zeros up to `offset`."""
        if offset > self.bytes:
            self.append(np.zeros(offset - self.bytes, np.uint8))

    def sha256(self) -> str:
        """The hash of all that was appended; asked for after the end."""
        return self._digest.hexdigest()

    def _flush(self) -> None:
        piece, count = self._pieces[0], self._filled
        data = piece.array[:count].data
        writer, hasher = self._workers
        piece.pending.append(writer.submit(self._write, data, self.bytes - count))
        piece.pending.append(hasher.submit(self._digest.update, data))
        self._pieces = [*self._pieces[1:], piece]
        self._filled = 0

    def _write(self, data: memoryview, offset: int) -> None:
        while len(data):
            if self._past_cache and (len(data) % _BLOCK or offset % _BLOCK):
                self._through_cache()
            started = time.perf_counter()
            try:
                count = os.pwrite(self._file, data, offset)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._past_cache:
                    raise
                self._through_cache()
                continue
            if self._past_cache and self._speed.is_slow(count, time.perf_counter() - started):
                self._through_cache()
            data, offset = data[count:], offset + count

    def _through_cache(self) -> None:
        self._direct(False)
        self._past_cache = False

    def _direct(self, wanted: bool) -> bool:
        """Whether the file is now written past the page cache, or not, as wanted."""
        flag = getattr(os, "O_DIRECT", 0)
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._file, fcntl.F_SETFL, flags | flag if wanted else flags & ~flag)
        except OSError:
            return False
        return bool(flag)


class _Piece:
    """Memory that begins on a page, and the work that still reads it."""

    def __init__(self) -> None:
        self.array = np.frombuffer(mmap.mmap(-1, _PIECE_BYTES), np.uint8)
        self.pending: deque[Future[Any]] = deque()

    def wait(self) -> None:
        while self.pending:
            self.pending.popleft().result()


class _Speed:
    """Bytes written and seconds spent on it."""

    def __init__(self) -> None:
        self.bytes, self.seconds = 0, 0.0

    def is_slow(self, count: int, seconds: float) -> bool:
        """Adds a write; whether those so far were slower than through the page cache."""
        self.bytes, self.seconds = self.bytes + count, self.seconds + seconds
        return self.bytes >= _PROBE_BYTES and self.bytes < _LEAST_BYTES_PER_S * self.seconds
