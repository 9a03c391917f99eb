"""From the folder of an artifact to a model that can be run."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

from dfcompiler.errors import UsageError
from dfcompiler.runtime.device_model import DeviceModel
from dfcompiler.runtime.library import Library
from dfcompiler.runtime.manifest import Manifest, read_manifest
from dfcompiler.runtime.model import Model


def load(
    path: str | Path,
    *,
    verify_hashes: bool = False,
    threads: int | None = None,
    graphs: bool = False,
) -> Model:
    """Loads an artifact.

    Args:
        path: the folder that ``compile`` wrote.
        verify_hashes: compare the hash of every file; without it, that of the library and the
            sizes of the others.
        threads: threads of a run; OpenMP decides if absent.
        graphs: on a GPU: keep calls as CUDA graphs from the second one of equal sizes and tensors.

    Raises:
        ModelError: if it is damaged, of another schema, or for another CPU.
        DeviceError: if it needs a GPU or a driver that is not there, or does not fit into it.
        UsageError: if an option is for the other kind of machine.
    """
    manifest, library = open_artifact(path, verify_hashes)
    if manifest.on_device:
        if threads:
            raise UsageError(f"{path} runs on a GPU; there are no threads to set")
        return DeviceModel(manifest, library, library.first(manifest.folder), graphs=graphs)
    if graphs:
        raise UsageError(f"{path} runs on a CPU; graphs are there for GPUs only")
    return Model(manifest, library, library.first(manifest.folder), threads)


def load_later(path: str | Path) -> Model:
    """Like `load`, but a GPU is looked for when the model first needs one."""
    manifest, library = open_artifact(path, False)
    return DeviceModel(manifest, library, None) if manifest.on_device else load(path)


def open_artifact(path: str | Path, verify_hashes: bool) -> tuple[Manifest, Library]:
    """The manifest and the library of an artifact."""
    manifest = read_manifest(Path(path).absolute(), verify_hashes)
    if "cublaslt" in manifest.implementations:
        _offer_cublaslt()
    library = manifest.folder / "model.so"
    return manifest, Library(library, manifest.name, manifest.max_rank, manifest.on_device)


def _offer_cublaslt() -> None:
    """Opens cuBLASLt where it is a Python package: the loader finds an open library by its name."""
    folders = (path for path in map(Path, sys.path) if path.name == "site-packages")
    for folder in folders:
        for library in sorted(folder.glob("nvidia/*/lib/libcublasLt.so.*")):
            with suppress(OSError):  # without it the model says what is missing
                ctypes.CDLL(str(library))
                return
