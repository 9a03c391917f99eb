"""What ``verify`` and ``bench`` look at: an artifact, with the program and the model behind it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfcompiler import api
from dfcompiler.cli.artifact import is_artifact, read_program
from dfcompiler.cli.progress import progress_bar
from dfcompiler.cli.session import Session
from dfcompiler.codegen.gpus import require_gpu
from dfcompiler.errors import UsageError
from dfcompiler.ir import Program
from dfcompiler.ir.specialize import fix_symbols
from dfcompiler.reference import runners
from dfcompiler.reference.sampling import default_sizes


@dataclass(frozen=True)
class Subject:
    """A loaded artifact and what it can be compared with.

    Attributes:
        model: the loaded artifact.
        program: the program that the interpreter runs.
        source: the model's file; None when only the artifact is known.
    """

    model: Any
    program: Program
    source: Path | None

    def sizes(self, given: Mapping[str, Any]) -> dict[str, int]:
        """A value for every symbol: those given, small ones for the others.

        Raises:
            UsageError: if a name does not exist or the model does not take a size.
        """
        values = api.given_sizes(self.program, given)
        fix_symbols(self.program, values)
        return default_sizes(self.program) | values

    @property
    def precision(self) -> str:
        """What the artifact's products multiply in."""
        return str(self.model.manifest["numeric_policy"].get("precision", "f32"))

    def default_reference(self) -> str:
        """The reference that suits the model's file."""
        if self.source is None or self.source.suffix == ".ir":
            return "interpreter"
        return "torch" if self.source.suffix == ".pt2" else "onnxruntime"

    def reference(
        self, name: str, sizes: Mapping[str, int], threads: int = 0
    ) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
        """The reference called `name`.

        Raises:
            UsageError: if it does not exist or cannot run this model.
        """
        if name == "interpreter":
            return runners.interpreter(self.program, sizes)
        if name not in runners.REFERENCES:
            raise UsageError(
                f"there is no reference {name}",
                hint=f"references are: {', '.join(runners.REFERENCES)}",
            )
        if self.source is None:
            raise UsageError(
                f"{name} needs the model that the artifact was made from",
                hint="name it with --model MODEL",
            )
        if name == "torch":
            return runners.exported_torch(self.source, threads)
        return runners.onnxruntime(self.source, threads)

    def run(
        self, inputs: Mapping[str, np.ndarray], sizes: Mapping[str, int]
    ) -> dict[str, np.ndarray]:
        """One call of the artifact from its initial state."""
        if self.model.signature.persistent:
            self.model.reset()
        found: dict[str, np.ndarray] = self.model.run(inputs, **sizes)
        return found


def open_subject(
    session: Session,
    path: Path,
    source: Path | None,
    target: str,
    pipeline: str,
    precision: str = "f32",
    profile: bool = False,
) -> Subject:
    """An artifact loaded, or a model compiled into a temporary one.

    Args:
        session: of the command.
        path: the model or artifact.
        source: the model that the artifact was made from, if it is named.
        target: what a model is compiled for.
        pipeline: how.
        precision: in what its products multiply.
        profile: whether a model is compiled to measure its operators.

    Raises:
        DeviceError: if it needs a GPU that is not there.
        UsageError: if the model is not the one that the artifact was made from.
    """
    from dfcompiler.runtime import load

    if not is_artifact(path):
        if source is not None:
            raise UsageError("--model is for artifacts; this is a model already")
        require_gpu(target)
        program = api.import_model(path)
        with progress_bar(session) as bar:
            model = api.compile(
                program,
                target=target,
                pipeline=pipeline,
                precision=precision,
                profile=profile,
                progress=bar,
            )
        return _alike(Subject(model, program, path))
    with session.working("reading the artifact"):
        model = load(path, verify_hashes=True)
    if source is None:
        return Subject(model, read_program(path), None)
    _check_source(path, source)
    return _alike(Subject(model, api.import_model(source), source))


def _alike(subject: Subject) -> Subject:
    """A pipeline such as ``generation`` makes another program of a model: nothing to compare."""
    found = [tensor.name for tensor in subject.model.signature.outputs]
    expected = [container.name for container in subject.program.outputs]
    if found != expected:
        raise UsageError(
            f"the artifact gives {', '.join(found)}, its model {', '.join(expected)}; "
            "the pipeline made another program of it",
            hint="compile the model, then name the artifact alone",
        )
    return subject


def _check_source(artifact: Path, source: Path) -> None:
    if not source.is_file():
        raise UsageError(f"there is no file {source}")
    expected = json.loads((artifact / "manifest.json").read_text())["source_hash"]
    if expected and hashlib.sha256(source.read_bytes()).hexdigest() != expected:
        raise UsageError(f"{artifact} was not made from {source}: their hashes differ")
