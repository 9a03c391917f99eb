"""A file imports only what stands to its left, function-local imports included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "target": {"errors"},
    "ir": set(),
    "importers": {"ir"},
    "analysis": {"ir"},
    "pipeline": {"ir", "analysis"},
    "lowering": {"ir", "analysis"},
    "kernels": set(),
    "codegen": {"ir", "analysis", "lowering", "pipeline"},
    "runtime": set(),
    "report": {"ir", "analysis", "pipeline", "lowering", "codegen", "runtime"},
    "reference": {"ir", "importers", "analysis", "codegen", "runtime"},
}
"""What each room may import besides itself, `errors` and `target`."""

ROOMS["faces"] = {*ROOMS, "passes"}
FACES = ("api", "cli", "torch_backend")
RUNTIME_MAY_IMPORT = {"numpy", "dfcompiler"}
PASSES_MAY_IMPORT = {"ir", "analysis", "pipeline", "target", "errors"}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Full names of everything that a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(path: Path) -> str:
    name = path.relative_to(ROOT / "dfcompiler").parts[0].removesuffix(".py")
    return "faces" if name in FACES else name


@pytest.mark.parametrize(
    "path",
    [p for p in modules("dfcompiler") if p != ROOT / "dfcompiler" / "__init__.py"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_core_imports_point_left(path: Path) -> None:
    room = room_of(path)
    allowed = {room, "errors", "target", *ROOMS[room]} if room != "errors" else {"errors"}
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "passes":
            assert room == "faces", f"only the faces know passes, not {path}"
        if parts[0] == "dfcompiler" and len(parts) > 1 and room != "faces":
            assert parts[1] in allowed, f"{room} imports {name}"


@pytest.mark.parametrize("path", modules("passes"), ids=lambda path: path.name)
def test_passes_import_the_public_rooms_only(path: Path) -> None:
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "dfcompiler":
            assert parts[1] in PASSES_MAY_IMPORT, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", modules("dfcompiler/runtime"), ids=lambda path: path.name)
def test_the_runtime_needs_numpy_and_the_standard_library_only(path: Path) -> None:
    import sys

    for name in imports(path):
        top = name.split(".")[0]
        assert top in RUNTIME_MAY_IMPORT or top in sys.stdlib_module_names, name


def test_every_pass_is_registered_and_listed_files_are_short() -> None:
    from importlib.metadata import entry_points

    from dfcompiler.pipeline import Pass, discover

    registered = {point.value for point in entry_points(group="dfcompiler.passes")}
    for path in modules("passes"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        tree = ast.parse(path.read_text())
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and any(
                isinstance(base, ast.Name) and base.id == "Pass" for base in node.bases
            ):
                assert f"{module}:{node.name}" in registered, f"{module}:{node.name}"
    assert all(issubclass(kind, Pass) and kind.name == name for name, kind in discover().items())
