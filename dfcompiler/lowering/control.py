"""States, loops and branches as control flow regions of the SDFG."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import dace
from dace.properties import CodeBlock
from dace.sdfg.state import BreakBlock, ConditionalBlock, ControlFlowRegion, LoopRegion

from dfcompiler.ir.program import Block, Branch, Loop, Op, State
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.symbolic import expression, sdfg_name, text

LowerOp = Callable[[Context, Op], None]


def lower_blocks(context: Context, blocks: tuple[Block, ...], lower_op: LowerOp) -> None:
    """Appends blocks to the current region, in order."""
    for block in blocks:
        match block:
            case State():
                context.begin_state()
                for op in block.ops:
                    lower_op(context, op)
            case Loop(body=body):
                lower_body = partial(lower_blocks, context, body, lower_op)
                context.backend.add_loop(context, block, lower_body)
            case Branch():
                _lower_branch(context, block, lower_op)


def add_loop(context: Context, loop: Loop, lower_body: Callable[[], None]) -> None:
    """A loop that the code runs itself, iteration by iteration."""
    variable = sdfg_name(loop.variable)
    region = LoopRegion(
        context.label(loop.name),
        f"{variable} < {text(expression(loop.stop))}",
        variable,
        f"{variable} = {text(expression(loop.start))}",
        f"{variable} = {variable} + 1",
    )
    context.append(region)
    outer = context.enter(region)
    if loop.until:
        _break_if(context, loop)
    lower_body()
    context.leave(outer)


def _break_if(context: Context, loop: Loop) -> None:
    """Begins the iteration with a test of the flag."""
    condition = _condition(context, loop.until)
    block = ConditionalBlock(context.label(f"{loop.name}_until"))
    context.append(block)
    end = BreakBlock(context.label(f"{loop.name}_end"))
    branch = _add_arm(context, block, f"{loop.name}_break", condition)
    branch.add_node(end)
    branch.add_edge(branch.start_block, end, dace.InterstateEdge())
    _add_arm(context, block, f"{loop.name}_continue", None)


def _lower_branch(context: Context, branch: Branch, lower_op: LowerOp) -> None:
    flag = _condition(context, branch.condition)
    block = ConditionalBlock(context.label(branch.name))
    context.append(block)
    for name, condition, body in (("then", flag, branch.then), ("else", None, branch.orelse)):
        region = _add_arm(context, block, f"{branch.name}_{name}", condition)
        outer = context.enter(region)
        context.last = region.start_block
        lower_blocks(context, body, lower_op)
        context.leave(outer)


def _add_arm(
    context: Context, block: ConditionalBlock, name: str, condition: CodeBlock | None
) -> ControlFlowRegion:
    """An arm of `block`, with its first state."""
    region = ControlFlowRegion(context.label(name), sdfg=context.sdfg)
    block.add_branch(condition, region)
    context.backend.begin_arm(region, context.label(f"{name}_read"))
    return region


def _condition(context: Context, flag: str) -> CodeBlock:
    """What decides at run time; the backend may put a state before that fetches it."""
    name = flag if flag.startswith("@") else f"@{flag}"
    return CodeBlock(context.backend.condition(context, name))
