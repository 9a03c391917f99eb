"""Make one loop of the layers of a model: code for one layer, weights and caches stacked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from dfcompiler.analysis.repeats import find_repeat
from dfcompiler.analysis.wiring import Repeat
from dfcompiler.ir import Block, Branch, Loop, Program, State
from dfcompiler.ir.rewrite import drop_unused_weights
from dfcompiler.pipeline import Decline, Pass
from passes.rules.layer_loop import LayerLoop
from passes.rules.stacks import Stacks, obstacles


@dataclass(frozen=True)
class RollLayers(Pass):
    """Turns a chain of equal layers into a loop over their stacked weights and caches.

    ::

        %0 = exp @x                        state main { @layers.carried = exp @x }
        %1 = matmul %0, @w.0               loop layers for layer in 0..3 { state layers.body {
        %2 = tanh %1                         %7 = slice @w.* {starts = [layer, 0, 0]}
        %3 = matmul %2, @w.1         ──▶     %8 = reshape %7
        %4 = tanh %3                         %5 = matmul @layers.carried, %8
        %5 = matmul %4, @w.2                 @layers.carried = tanh %5 } }
        %6 = tanh %5                       state main.end { @y = neg @layers.carried }
        @y = neg %6

    What a layer hands to the next one is in a container: the output itself where the last layer
    writes one. The slices are views, so that nothing is copied; weights are put together when they
    are written. State that each layer keeps for itself, such as a KV cache, is stacked likewise and
    updated in place, ``@k.* = index_copy @k.*, %i, %x {part = layer}``; callers still know it layer
    by layer. Counters and other small state may be replaced as a whole, by a copy. Layers are found
    by their graph (`analysis/repeats.py`), whatever they are called.

    Skips layers that differ, fewer than three of them, layers whose results are read elsewhere, and
    weights or state that something outside of such loops uses too.
    """

    name: ClassVar[str] = "roll-layers"
    runs_on: ClassVar[tuple[str, ...]] = ("cpu",)
    # What layers hand on may be copied, and views of stacked weights are operators more.
    claims: ClassVar[tuple[str, ...]] = ("flops ==", "io_bound_bytes ==", "weight_bytes ==")

    def run(self, program: Program, decline: Decline) -> Program:
        repeats = _repeats(program, decline)
        if not repeats:
            return program
        stacks = Stacks(program)
        body = _rolled(program.body, repeats, stacks)
        data = {**program.data, **stacks.data}
        rolled = replace(program, body=body, containers=stacks.containers, data=data)
        return drop_unused_weights(rolled)


def _repeats(program: Program, decline: Decline) -> dict[str, Repeat]:
    """The equal layers by state; states that keep all of their operators have none."""
    containers = {f"@{c.name}": c for c in program.containers}
    found = {s.name: find_repeat(s, containers) for s in program.states() if s.ops}
    reasons = {name: one for name, one in found.items() if isinstance(one, str)}
    repeats = {name: one for name, one in found.items() if isinstance(one, Repeat)}
    reasons |= obstacles(program, repeats)
    for state in program.states():
        if state.name in reasons:
            decline(state.ops[-1], reasons[state.name])
    return {name: one for name, one in repeats.items() if name not in reasons}


def _rolled(
    blocks: tuple[Block, ...], repeats: dict[str, Repeat], stacks: Stacks
) -> tuple[Block, ...]:
    found: list[Block] = []
    for block in blocks:
        match block:
            case Loop(body=body):
                found.append(replace(block, body=_rolled(body, repeats, stacks)))
            case Branch():
                then = _rolled(block.then, repeats, stacks)
                orelse = _rolled(block.orelse, repeats, stacks)
                found.append(replace(block, then=then, orelse=orelse))
            case State() if block.name in repeats:
                found += LayerLoop(stacks, block, repeats[block.name]).blocks()
            case State():
                found.append(block)
    return tuple(found)
