"""From a file or an object that holds a model to its program, as exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfcompiler.api.paths import existing
from dfcompiler.errors import ModelError, UsageError, VerifyError

if TYPE_CHECKING:
    from dfcompiler.ir import Program


def import_model(
    model: Any,
    *,
    example_inputs: Mapping[str, Any] | Sequence[Any] | None = None,
    dynamic_shapes: Any = None,
) -> Program:
    """The program of a model, as exported, before any pass.

    Raises:
        UsageError: if `model` is nothing that can be imported.
        ModelError: if it is broken or contradicts itself.
        UnsupportedError: with all operators that are missing.
    """
    from dfcompiler.ir import Program, verify

    if isinstance(model, Program):
        return verify(model)
    if isinstance(model, str | PathLike):
        return _import_file(existing(model))
    kind = _kind(model)
    if kind == "onnx":
        from dfcompiler.importers.onnx import import_onnx

        return import_onnx(model)
    if kind == "exported":
        from dfcompiler.importers.torch_export import import_exported

        return import_exported(model)
    if kind == "module":
        from dfcompiler.importers.torch_export import import_module

        if example_inputs is None:
            raise UsageError(
                "a torch.nn.Module is traced; expected example_inputs",
                hint="compile(module, example_inputs={...}, dynamic_shapes={...})",
            )
        inputs = example_inputs if isinstance(example_inputs, Mapping) else tuple(example_inputs)
        return import_module(model, inputs, dynamic_shapes)
    raise UsageError(
        f"a {type(model).__name__} is no model; expected a path, an onnx.ModelProto, a "
        "torch.nn.Module, a torch.export.ExportedProgram or a Program"
    )


def _import_file(path: Path) -> Program:
    if path.is_dir():
        what = "an artifact already" if (path / "manifest.json").is_file() else "a folder"
        hint = "run it with dfc run or dfc.load" if what.startswith("an") else ""
        raise UsageError(f"{path} is {what}; expected a model file", hint=hint)
    if path.suffix == ".ir":
        return _import_text(path)
    if path.suffix == ".pt2":
        from dfcompiler.importers.torch_export import import_exported, load_exported

        return import_exported(load_exported(path), path.stem)
    from dfcompiler.importers.onnx import import_onnx

    return import_onnx(path)


def _import_text(path: Path) -> Program:
    from dfcompiler.ir import parse, verify

    try:
        program = verify(parse(path.read_text(encoding="utf-8")))
    except (UsageError, VerifyError) as error:
        raise ModelError(f"{path} is no program: {error.message}", error.where) from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not the text form of a program") from error
    if program.weights:
        raise ModelError(
            f"{path} is text without the values of its {len(program.weights)} weights",
            hint="compile the model it was made from",
        )
    return program


def _kind(model: Any) -> str:
    """What a model object is, by the names of its classes, so that nothing need be imported."""
    for base in type(model).__mro__:
        match base.__module__.split(".")[0], base.__name__:
            case "onnx", "ModelProto":
                return "onnx"
            case "torch", "ExportedProgram":
                return "exported"
            case "torch", "Module":
                return "module"
    return ""
