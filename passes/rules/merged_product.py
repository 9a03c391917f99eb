"""A product that may join others, and the operators of the merged one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from dfcompiler.ir import Attrs, Op
from passes.fuse_epilogue import fused


@dataclass(frozen=True)
class Member:
    """A product that may join others: ``activation · weight [+ bias]``, and `stages` after it."""

    op: Op
    product: Op
    weight: str
    bias: Op | None = None
    stages: tuple[Op, ...] = ()

    @property
    def offset(self) -> str:
        """The weight that is added."""
        first = self.product.result
        return next((name for name in self.bias.inputs if name != first), "") if self.bias else ""

    @property
    def key(self) -> tuple[object, ...]:
        """What members of one group have in common."""
        return (self.product.inputs[0], bool(self.bias), self.op.type.dtype)


def product_of(op: Op, stored: Mapping[str, int]) -> Member | None:
    """The product with a weight that an operator is or begins with; `stored` has their ranks."""
    linear = op.kind == "fused" and op.attr("kernel") == "linear"
    product, *rest = op.region if linear else (op,)
    if product.kind != "matmul" or stored.get(product.inputs[1]) != 2:
        return None
    biased = bool(rest) and rest[0].kind == "add"
    biased = biased and any(stored.get(name) == 1 for name in rest[0].inputs)
    bias = rest.pop(0) if biased else None
    return Member(op, product, product.inputs[1], bias, tuple(rest))


def merged_ops(
    members: Sequence[Member],
    names: tuple[str, str],
    weight: str,
    offset: str,
    fresh: Callable[[], str] = lambda: "%part",
) -> list[list[Op]]:
    """What takes the place of each member: the merged product at the first, slices, and stages.

    Args:
        members: products of one activation.
        names: of the product and of the product with its bias.
        weight: the container of their weights.
        offset: the container of their biases; empty for none.
        fresh: gives names for slices that stages read.
    """
    first = members[0]
    columns = [member.op.type.shape[-1] for member in members]
    whole = first.op.type.with_shape((*first.op.type.shape[:-1], sum(columns)))
    inputs = (first.product.inputs[0], weight)
    kernel = replace(first.product, result=names[0], type=whole, inputs=inputs)
    if first.bias is not None:
        added = replace(first.bias, result=names[1], type=whole, inputs=(names[0], offset))
        kernel = fused([kernel, added], "linear")
    starts = accumulate(columns[:-1], initial=0)
    found: list[list[Op]] = [[kernel]]
    for member, start in zip(members, starts, strict=True):
        at = Attrs({"starts": (*(0 for _ in whole.shape[1:]), start)})
        part = replace(member.op, kind="slice", inputs=(kernel.result,), attrs=at, region=())
        found[-1] += _staged(member, part, fresh) if member.stages else [part]
        found.append([])
    return found[:-1]


def _staged(member: Member, part: Op, fresh: Callable[[], str]) -> list[Op]:
    """A slice, and what was the epilogue of its product as a kernel of its own."""
    part = replace(part, result=fresh())
    renamed = {(member.bias or member.product).result: part.result}
    stages = [stage.renamed(renamed) for stage in member.stages]
    stages[-1] = replace(stages[-1], result=member.op.result)
    return [part, fused(stages, "elementwise") if len(stages) > 1 else stages[0]]
