"""One mask and one causal flag for `attention`, from the masks that a model applies in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from dfcompiler.analysis.scores import Added, Hidden, Mask
from dfcompiler.analysis.visibility import Always, Causal, Leaf, leaves, not_negative, shown
from dfcompiler.ir.dims import Dim, Shape, equal, same_shape
from dfcompiler.ir.draft import Draft
from dfcompiler.ir.match import MismatchError, through
from dfcompiler.ir.types import DType, TensorType

_ABSORBING = -1e30
"""At and below, adding a score changes nothing, so that adding it and replacing by it agree."""
_VANISHING = -1e4
"""At and below, the exponential of a masked score is zero beside any visible one."""


@dataclass
class MaskBuilder:
    """Collects masks over scores ``[batch, heads, queries, keys]``.

    A row in which nothing is visible decides what may be done: zeros in `attention`; with a finite
    fill, the mean of all values. A finite mask therefore stays an added one, unless it is causal
    alone, where every query sees a key.
    """

    draft: Draft
    shape: tuple[Dim, Dim, Dim, Dim]
    dtype: DType
    causal: bool = False
    visible: list[Leaf] = field(default_factory=list)
    added: list[str] = field(default_factory=list)

    def mask(self, masks: Sequence[Mask]) -> str:
        """The drafted mask for `attention`, or nothing; sets `causal`."""
        finite: list[tuple[list[Leaf], Hidden]] = []
        for mask in masks:
            if isinstance(mask, Added):
                plain = through(self.draft.state, mask.name, "expand", "copy")
                self.added.append(self._lifted(plain, mask.rank))
                continue
            if mask.shape is None:
                kept = self._kept(mask.visible)
            else:
                kept = [self._reshaped(mask.visible, mask.shape)]
            if mask.fill == -math.inf:
                self.causal |= any(map(self._is_causal, kept))
                self.visible += [leaf for leaf in kept if not self._is_causal(leaf)]
            elif kept:
                finite.append((kept, mask))
        self._take_finite(finite)
        return self._combined(masks)

    def _kept(self, mask: Leaf) -> list[Leaf]:
        """The parts of a mask that may hide something; the mask itself if it is all of them."""
        state = self.draft.state
        parts = leaves(state, mask.name, mask.negated)
        kept = [leaf for leaf in parts if not isinstance(shown(state, leaf), Always)]
        if len(kept) == len(parts) and not any(map(self._is_causal, kept)):
            return [Leaf(through(state, mask.name, "expand", "copy"), mask.negated)]
        return list(dict.fromkeys(kept))

    def _reshaped(self, mask: Leaf, shape: Shape) -> Leaf:
        name = self.draft.once((mask.name, shape), lambda: self.draft.reshape(mask.name, shape))
        return Leaf(name, mask.negated)

    def _is_causal(self, leaf: Leaf) -> bool:
        """Whether a mask shows the last query the last key, and so on backward."""
        found = shown(self.draft.state, leaf)
        return isinstance(found, Causal) and equal(found.offset, self.shape[3] - self.shape[2])

    def _take_finite(self, finite: list[tuple[list[Leaf], Hidden]]) -> None:
        alone = not self.added and not self.visible
        every_query_sees = not_negative(self.draft.state, self.shape[3] - self.shape[2])
        if (
            alone
            and every_query_sees
            and all(
                mask.fill <= _VANISHING and all(map(self._is_causal, kept)) for kept, mask in finite
            )
        ):
            self.causal |= bool(finite)
            return
        for kept, mask in finite:
            if mask.added and self._is_whole(kept, mask):
                self.added.append(self._lifted(mask.added, mask.rank))
                continue
            if mask.replaces and mask.fill > _ABSORBING:
                raise MismatchError(
                    f"hidden scores are set to {mask.fill:g}, and it is not provable that every "
                    "query sees a key"
                )
            self.added.append(self._filled(kept, mask))

    def _is_whole(self, kept: list[Leaf], mask: Hidden) -> bool:
        """Whether nothing of a mask goes, neither parts nor expansions."""
        state = self.draft.state
        parts = leaves(state, mask.visible.name, mask.visible.negated)
        unexpanded = through(state, mask.visible.name, "expand", "copy")
        return len(parts) == len(kept) or kept == [Leaf(unexpanded, mask.visible.negated)]

    def _filled(self, kept: list[Leaf], mask: Hidden) -> str:
        """Zero where visible and the fill elsewhere, at the extents of the mask itself."""

        def make() -> str:
            scalar = TensorType(self.dtype)
            zero = self.draft.op("constant", [], {"value": 0.0}, type=scalar)
            fill = self.draft.op("constant", [], {"value": mask.fill}, type=scalar)
            return self.draft.op("where", [self._conjunction(kept, mask.rank), zero, fill])

        return self.draft.once((tuple(kept), mask.fill, mask.rank, self.shape), make)

    def _combined(self, masks: Sequence[Mask]) -> str:
        rank = max((mask.rank for mask in masks), default=4)
        total = self.added[0] if self.added else ""
        for name in self.added[1:]:
            total = self.draft.op("add", [total, name])
        if not self.visible:
            return total
        visible = self._conjunction(list(dict.fromkeys(self.visible)), rank)
        if not total:
            return visible
        hidden = TensorType(self.draft.type_of(total).dtype)
        fill = self.draft.op("constant", [], {"value": -math.inf}, type=hidden)
        return self.draft.op("where", [visible, total, fill])

    def _conjunction(self, parts: list[Leaf], rank: int) -> str:
        def make() -> str:
            result = ""
            for leaf in parts:
                name = self._lifted(leaf.name, rank)
                name = self.draft.op("not", [name]) if leaf.negated else name
                result = self.draft.op("and", [result, name]) if result else name
            return result

        return self.draft.once((tuple(parts), rank, self.shape), make)

    def _lifted(self, name: str, rank: int) -> str:
        """A mask of scores ``[batch · heads, queries, keys]``, batch and heads apart."""
        found = self.draft.type_of(name).shape
        batch, heads = self.shape[:2]
        if rank != 3 or len(found) != 3 or same_shape(found[:1], (1,)):
            return name
        if not equal(found[0], batch * heads):
            raise MismatchError("a mask does not have the batch and heads of the scores")
        return self.draft.reshape(name, (batch, heads, *found[1:]))
