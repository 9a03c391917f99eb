"""Temporary containers that are never in use together become one."""

from __future__ import annotations

from dataclasses import replace

from dfcompiler.analysis.liveness import Lifetime, container_lifetimes
from dfcompiler.ir import Block, Branch, Loop, Op, Program, State, TensorType


def merge_temporaries(program: Program) -> Program:
    """The program in which temporaries of one type whose lifetimes are disjoint share a container.

    Lifetimes run over the whole state machine, so that a container that a loop carries from one
    iteration to the next keeps its place for the whole loop.
    """
    types = {f"@{c.name}": c.type for c in program.containers}
    kept: dict[TensorType, list[tuple[str, list[Lifetime]]]] = {}
    names: dict[str, str] = {}
    for life in sorted(container_lifetimes(program), key=lambda one: one.start):
        places = kept.setdefault(types[life.name], [])
        for name, taken in places:
            if not any(life.overlaps(other) for other in taken[-1:]):
                taken.append(life)
                names[life.name] = name
                break
        else:
            places.append((life.name, [life]))
    if not names:
        return program
    containers = tuple(c for c in program.containers if f"@{c.name}" not in names)
    return replace(program, containers=containers, body=_renamed(program.body, names))


def _renamed(blocks: tuple[Block, ...], names: dict[str, str]) -> tuple[Block, ...]:
    return tuple(_renamed_block(block, names) for block in blocks)


def _renamed_block(block: Block, names: dict[str, str]) -> Block:
    match block:
        case State(ops=ops):
            return replace(block, ops=tuple(_renamed_op(op, names) for op in ops))
        case Loop(body=body, until=until):
            return replace(block, body=_renamed(body, names), until=names.get(until, until))
        case Branch(condition=condition, then=then, orelse=orelse):
            return replace(
                block,
                condition=names.get(condition, condition),
                then=_renamed(then, names),
                orelse=_renamed(orelse, names),
            )


def _renamed_op(op: Op, names: dict[str, str]) -> Op:
    renamed = op.renamed(names)
    return replace(renamed, result=names[op.result]) if op.result in names else renamed
