"""Programs as text that is equal when they compute the same in the same way."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from dfcompiler.ir import Container, Op, Program, Role, State, Symbol, show
from dfcompiler.ir.rewrite import map_states


def normal_form(program: Program) -> str:
    """The text of a program without what a source may choose freely.

    Operators stand before their first reader, depth first from what writes containers. Values,
    weights and outputs are called by the order of their first use, weights of equal contents are
    one, and the contents follow. Sources and bounds of symbols are left out.
    """
    program = map_states(program, _depth_first)
    weights, contents = _weight_names(program)
    outputs = {f"@{c.name}": f"@output{i}" for i, c in enumerate(program.outputs)}
    program = map_states(program, lambda state: _renamed(state, weights | outputs))
    containers = {c.name: c for c in _containers(program, weights, outputs)}
    plain = Program(
        "program",
        tuple(Symbol(symbol.name) for symbol in program.symbols),
        tuple(containers.values()),
        program.body,
    )
    return "\n".join([show(plain), *(f"# {name}: {key}" for key, name in contents.items())])


def _depth_first(state: State) -> State:
    producers = {op.result: op for op in state.ops if op.result.startswith("%")}
    placed: set[str] = set()
    ops: list[Op] = []
    for root in (op for op in state.ops if op.result.startswith("@")):
        stack = [(root, iter(root.inputs))]
        while stack:
            op, rest = stack[-1]
            name = next(rest, None)
            if name is None:
                stack.pop()
                ops.append(op)
            elif name in producers and name not in placed:
                placed.add(name)
                stack.append((producers[name], iter(producers[name].inputs)))
    return replace(state, ops=tuple(ops))


def _weight_names(program: Program) -> tuple[dict[str, str], dict[str, str]]:
    """A new name for each weight that is read, and the new names by their contents."""
    contents: dict[str, str] = {}
    names: dict[str, str] = {}
    weights = {f"@{c.name}" for c in program.weights}
    for name in dict.fromkeys(name for op in program.ops() for name in op.inputs):
        if name in weights:
            key = _digest(program.data[name[1:]])
            names[name] = "@" + contents.setdefault(key, f"weight{len(contents)}")
    return names, contents


def _digest(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)} {hashlib.sha256(array.tobytes()).hexdigest()[:16]}"


def _renamed(state: State, containers: dict[str, str]) -> State:
    names = dict(containers)
    ops = []
    for op in state.ops:
        read = op.renamed(names)
        if op.result.startswith("%"):
            names[op.result] = f"%{len(ops)}"
        ops.append(replace(read, result=names.get(op.result, op.result), source=""))
    return replace(state, ops=tuple(ops))


def _containers(
    program: Program, weights: dict[str, str], outputs: dict[str, str]
) -> list[Container]:
    table = program.table()
    kept = [c for c in program.containers if c.role not in (Role.WEIGHT, Role.OUTPUT)]
    kept += [replace(table[old[1:]], name=new[1:]) for old, new in (outputs | weights).items()]
    return kept
