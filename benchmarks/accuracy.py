"""Largest differences of compiled models from their references, one artifact for all shapes."""

from __future__ import annotations

import copy
import importlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record

MINILM_SHAPES = ((1, 1), (1, 16), (3, 77), (8, 128), (1, 512))
TINY_SHAPES = ((1, 1), (3, 7), (2, 64))
VIT_BATCHES = ((1,), (2,), (5,))
TOKENS = 60
PROMPTS = {"en": "Alice was beginning to", "pt": "Era uma vez uma menina"}


def main() -> None:
    """Compiles every model from every source, compares, and writes the results."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [*_minilm(Path(folder)), *_tiny(Path(folder)), _int8()]
    tokens = [_tokens(language) for language in PROMPTS]
    data = {"machine": record.machine(), "differences": rows, "tokens": tokens}
    record.write("accuracy", data, _text(data))


def _minilm(folder: Path) -> Iterator[dict[str, Any]]:
    from models import minilm

    module = minilm.build()
    sources = {
        "onnx": _compiled(minilm.export_onnx(folder / "minilm.onnx")),
        "torch": _compiled(module, minilm),
    }
    inputs = [minilm.random_inputs(*shape) for shape in MINILM_SHAPES]
    for source, model in sources.items():
        yield _against_torch("MiniLM, trained", source, model, module, MINILM_SHAPES, inputs)


def _tiny(folder: Path) -> Iterator[dict[str, Any]]:
    from models.onnx_export import TINY, export_tiny

    for name in TINY:
        builder = importlib.import_module(f"models.{name}")
        module = builder.build()
        shapes = VIT_BATCHES if name == "vit" else TINY_SHAPES
        inputs = [_arrays(builder.example_inputs(*shape)) for shape in shapes]
        sources = {
            "onnx": _compiled(export_tiny(name, folder / f"{name}.onnx")),
            "torch": _compiled(module, builder),
        }
        for source, model in sources.items():
            yield _against_torch(f"tiny {name}", source, model, module, shapes, inputs)


def _int8() -> dict[str, Any]:
    from dfcompiler.reference.runners import onnxruntime
    from models import minilm, minilm_int8

    model, peer = _compiled(minilm_int8.path()), onnxruntime(minilm_int8.path(), 2)
    names = {tensor.name for tensor in model.signature.inputs}
    shapes = MINILM_SHAPES[1:]
    inputs = [
        {name: array for name, array in minilm.random_inputs(*shape).items() if name in names}
        for shape in shapes
    ]
    found = [_difference(model.run(one), peer(one)) for one in inputs]
    return {
        "model": "MiniLM, int8 weights",
        "source": "onnx",
        "reference": "onnxruntime",
        "shapes": _shapes(shapes),
        "max_abs": max(found),
    }


def _against_torch(
    name: str,
    source: str,
    model: Any,
    module: Any,
    shapes: Sequence[tuple[int, ...]],
    inputs: list[dict[str, np.ndarray]],
) -> dict[str, Any]:
    """Distances between us, torch in fp32 and torch in float64."""
    from dfcompiler.reference.runners import torch_module

    single, double = torch_module(module), torch_module(copy.deepcopy(module).double())
    ours = theirs = between = 0.0
    for one in inputs:
        exact = double(
            {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in one.items()}
        )
        found, expected = model.run(one), single(one)
        between = max(between, _difference(found, expected))
        ours = max(ours, _difference(found, exact))
        theirs = max(theirs, _difference(expected, exact))
    return {
        "model": name,
        "source": source,
        "reference": "torch",
        "shapes": _shapes(shapes),
        "max_abs": between,
        "max_abs_from_float64": ours,
        "torch_max_abs_from_float64": theirs,
    }


def _tokens(language: str) -> dict[str, Any]:
    """How many greedy tokens of one compiled generation are those of the NumPy reference."""
    import glassllm

    import dfcompiler
    from models.glassllm import generation_program

    reference, tokenizer = glassllm.load_pretrained(language)
    ids = tokenizer.encode(PROMPTS[language])
    expected = [step.token for step in reference.generate(ids, TOKENS, greedy=True)]
    model = dfcompiler.compile(generation_program(language))
    found = model.run({"ids": np.array([ids])}, N=TOKENS)["tokens"][0].tolist()
    same = next((i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b), TOKENS)
    return {"language": language, "tokens": TOKENS, "same": same}


def _compiled(model: Any, builder: Any = None) -> Any:
    import dfcompiler

    if builder is None:
        return dfcompiler.compile(model)
    return dfcompiler.compile(
        model, example_inputs=builder.example_inputs(), dynamic_shapes=builder.dynamic_shapes()
    )


def _arrays(tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _difference(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """The largest absolute difference over all outputs, in order of position."""
    pairs = zip(found.values(), expected.values(), strict=True)
    return max(float(np.abs(a.astype(np.float64) - b).max()) for a, b in pairs)


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join("×".join(map(str, shape)) for shape in shapes)


def _text(data: dict[str, Any]) -> str:
    def exponent(row: dict[str, Any], key: str) -> str:
        return f"{row[key]:.1e}" if key in row else "–"

    header = ("model", "from", "shapes", "max abs", "from float64", "torch from float64")
    rows = [
        (
            row["model"],
            row["source"],
            row["shapes"],
            f"{row['max_abs']:.1e} ({row['reference']})",
            exponent(row, "max_abs_from_float64"),
            exponent(row, "torch_max_abs_from_float64"),
        )
        for row in data["differences"]
    ]
    lines = [
        f"* glassllm, {row['language']}: the first {row['same']} of {row['tokens']} greedy tokens "
        "are those of the NumPy reference\n"
        for row in data["tokens"]
    ]
    return (
        "# Accuracy\n\nfp32, one artifact for all shapes of a row, padding masks where the model "
        f"takes them. {record.machine_line(data['machine'])}\n"
        + record.markdown_table(header, rows)
        + "\n"
        + "".join(lines)
    )


if __name__ == "__main__":
    main()
