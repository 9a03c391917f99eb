"""Simulated fast memories, word by word: what a schedule really moves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class LruCache:
    """A fully associative cache of `words` words that writes back what it evicts."""

    def __init__(self, words: int) -> None:
        self.words = words
        self.loads = self.stores = 0
        self._present: OrderedDict[Hashable, bool] = OrderedDict()
        self._written: set[Hashable] = set()

    def touch(self, word: Hashable, *, writes: bool = False, made: bool = False) -> None:
        """Reads or writes one word; one that is `made` here is not loaded the first time."""
        if word in self._present:
            self._present.move_to_end(word)
        else:
            if not made or word in self._written:
                self.loads += 1
            if len(self._present) == self.words:
                _, dirty = self._present.popitem(last=False)
                self.stores += dirty
            self._present[word] = False
        if writes:
            self._present[word] = True
            self._written.add(word)

    def moved(self) -> int:
        """Words moved, those included that still have to be written back."""
        return self.loads + self.stores + sum(self._present.values())


class Scratchpad:
    """A memory that a schedule manages itself; too much in it at once is an error."""

    def __init__(self, words: int) -> None:
        self.words, self.used, self.moved = words, 0, 0

    @contextmanager
    def kept(self, name: str, words: int) -> Iterator[None]:
        """Room for something made here."""
        self.used += words
        assert self.used <= self.words, f"{name} does not fit: {self.used} of {self.words}"
        yield
        self.used -= words

    @contextmanager
    def loaded(self, name: str, words: int) -> Iterator[None]:
        """Room for something that is read."""
        self.moved += words
        with self.kept(name, words):
            yield

    def store(self, words: int) -> None:
        """Writes something to slow memory."""
        self.moved += words
