"""Artifacts for a GPU whose library is that of the emulation: all but the device is real."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.cuda_emulation.sources import CACHE, compile_emulated


def emulate_artifact(
    artifact: Path, out: Path, edit: Callable[[str, str], str] = lambda name, text: text
) -> Path:
    """A copy of an artifact that runs here.

    Args:
        artifact: one for a GPU.
        out: the folder to make.
        edit: changes the sources; gets the name of a file and its text.
    """
    texts = {
        path.name: edit(path.name, path.read_text())
        for path in sorted((artifact / "src").iterdir())
        if path.is_file() and path.name != "build.sh"
    }
    headers = {name: text for name, text in texts.items() if name.endswith(".h")}
    units = {name: text for name, text in texts.items() if name not in headers}
    key = hashlib.sha256("\0".join(f"{n}\0{t}" for n, t in headers.items()).encode()).hexdigest()
    folder = CACHE / "cuda" / f"headers-{key[:24]}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in headers.items():
        (folder / name).write_text(text)
    library = compile_emulated(units, [f"-I{folder}"])
    shutil.copytree(artifact, out)
    shutil.copyfile(library, out / "model.so")
    manifest = json.loads((out / "manifest.json").read_text())
    data = library.read_bytes()
    manifest["files"]["model.so"] = {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out
