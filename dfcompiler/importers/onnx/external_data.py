"""Weights in files beside the model, mapped into memory; nothing outside its folder is opened."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from dfcompiler.errors import ModelError


@dataclass
class ExternalData:
    """The external files of one model, each mapped once.

    Attributes:
        folder: the model's folder; None for a model that did not come from a file.
    """

    folder: Path | None
    _mapped: dict[Path, memoryview] = field(default_factory=dict)

    def bytes_of(self, tensor: onnx.TensorProto, size: int) -> memoryview:
        """The `size` bytes that `tensor` refers to.

        Raises:
            ModelError: if the reference is incomplete, leaves the folder or points past the end.
        """
        where = (f"initializer {tensor.name}",)
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        data = self._map(self._resolve(location, where), location, where)
        offset = _number(entries.get("offset", "0"), where)
        length = _number(entries.get("length", str(size)), where)
        if length != size:
            raise ModelError(f"its external data has {length} bytes; its type needs {size}", where)
        if offset + length > len(data):
            raise ModelError(
                f"external data {location} has {len(data)} bytes; "
                f"bytes {offset} to {offset + length} are needed",
                where,
                "the file is cut short; download it again",
            )
        return data[offset : offset + length]

    def _resolve(self, location: str, where: tuple[str, ...]) -> Path:
        if self.folder is None:
            raise ModelError(
                "its data is external, but the model was not given as a file",
                where,
                "give the path of the model, or load its external data before",
            )
        pure = PurePosixPath(location.replace("\\", "/"))
        absolute = pure.is_absolute() or bool(PureWindowsPath(location).drive)
        if not location or "\0" in location or absolute or ".." in pure.parts:
            raise ModelError(
                f"external data {location!r} is not a path inside the model's folder", where
            )
        path = (self.folder / pure).resolve()
        if not path.is_relative_to(self.folder):
            raise ModelError(f"external data {location} leads out of the model's folder", where)
        if not path.is_file():
            raise ModelError(f"external data {location} is missing in {self.folder}", where)
        return path

    def _map(self, path: Path, location: str, where: tuple[str, ...]) -> memoryview:
        if path not in self._mapped:
            if path.stat().st_size == 0:
                raise ModelError(f"external data {location} is empty", where)
            try:
                with path.open("rb") as stream:
                    mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            except OSError as error:
                raise ModelError(
                    f"external data {location} cannot be read: {error.strerror}", where
                ) from error
            self._mapped[path] = memoryview(mapped)
        return self._mapped[path]


def _number(text: str, where: tuple[str, ...]) -> int:
    if not text.isdecimal():
        raise ModelError(f"offset or length {text!r} of its external data is no number", where)
    return int(text)
