"""States, loops and branches as control flow regions of the SDFG."""

from __future__ import annotations

from collections.abc import Callable

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
            case Loop():
                _lower_loop(context, block, lower_op)
            case Branch():
                _lower_branch(context, block, lower_op)


def _lower_loop(context: Context, loop: Loop, lower_op: LowerOp) -> None:
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
    lower_blocks(context, loop.body, lower_op)
    if loop.until:
        _break_if(context, loop)
    context.leave(outer)


def _break_if(context: Context, loop: Loop) -> None:
    """Ends the iteration with a test: the flag is read after the body, never before the first."""
    block = ConditionalBlock(context.label(f"{loop.name}_until"))
    context.append(block)
    branch = ControlFlowRegion(context.label(f"{loop.name}_break"), sdfg=context.sdfg)
    block.add_branch(_condition(context, loop.until), branch)
    branch.add_node(BreakBlock(context.label(f"{loop.name}_end")), is_start_block=True)


def _lower_branch(context: Context, branch: Branch, lower_op: LowerOp) -> None:
    block = ConditionalBlock(context.label(branch.name))
    context.append(block)
    arms = [("then", _condition(context, branch.condition), branch.then)]
    if branch.orelse:
        arms.append(("else", None, branch.orelse))
    for name, condition, body in arms:
        region = ControlFlowRegion(context.label(f"{branch.name}_{name}"), sdfg=context.sdfg)
        block.add_branch(condition, region)
        outer = context.enter(region)
        lower_blocks(context, body, lower_op)
        context.leave(outer)


def _condition(context: Context, flag: str) -> CodeBlock:
    name = flag if flag.startswith("@") else f"@{flag}"
    return CodeBlock(f"{context.array(name)}[0]")
