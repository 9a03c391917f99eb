"""What the lowering of one operator sees: types, arrays, the graph so far, records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import dace
from dace.sdfg import nodes
from dace.sdfg.state import ControlFlowBlock, ControlFlowRegion

from dfcompiler.analysis.layouts import View, is_contiguous, whole
from dfcompiler.errors import InternalError, UnsupportedError
from dfcompiler.ir.dims import Dim, product
from dfcompiler.ir.program import Container, Op, Program, Role
from dfcompiler.ir.types import Dense, DType, TensorType
from dfcompiler.lowering.backend import Backend
from dfcompiler.lowering.lowered import Argument, ArgumentRole, KernelRecord
from dfcompiler.lowering.symbolic import expression
from dfcompiler.lowering.views import NOWHERE, add_array, everything, strides
from dfcompiler.target import CpuTarget, CudaTarget, Target

_PREFIXES = {
    Role.INPUT: "in",
    Role.WEIGHT: "w",
    Role.PERSIST: "state",
    Role.TEMP: "temp",
    Role.OUTPUT: "out",
}
STATUS = "status"
Place: TypeAlias = tuple[ControlFlowRegion, ControlFlowBlock | None]
"""A region and its last block so far."""


class Context:
    """The SDFG under construction, and the names of the program in it.

    Attributes:
        program: the program being lowered.
        target: the machine to generate code for.
        backend: what that kind of machine asks of the graph.
        sdfg: the graph.
        region: the control flow region that the next state joins.
        last: its last block so far, if any.
        expansions: implementation wanted for an operator kind (``{"matmul": "pure"}``).
        works: cost of each map and library node so far, in element-wise operations.
        records: one record for each operator lowered so far.
        sites: sentences about indices that may turn out bad at run time.
        captured_loops: how many loops of the program become graphs, so far.
        instances: by family of kernels, the templates that its translation unit instantiates.
    """

    def __init__(
        self,
        program: Program,
        target: Target,
        backend: Backend,
        sdfg: dace.SDFG,
        expansions: Mapping[str, str] | None = None,
    ) -> None:
        self.program, self.target, self.backend, self.sdfg = program, target, backend, sdfg
        self.expansions = dict(expansions or {})
        self.region: ControlFlowRegion = sdfg
        self.last: ControlFlowBlock | None = None
        self.works: list[Any] = []
        self.records: list[KernelRecord] = []
        self.sites: list[str] = []
        self.arguments: dict[str, Argument] = {}
        self._reserved = {STATUS}
        self._containers = {f"@{c.name}": self._container(c) for c in program.containers}
        self._values: dict[str, Argument] = {}
        self._places: dict[str, View] = {}
        self._shared: set[str] = set()
        self._headers: list[str] = []
        self.instances: dict[str, list[str]] = {}
        self.captured_loops = 0

    @property
    def cpu(self) -> CpuTarget:
        """The target of a lowering that is for processors only."""
        if not isinstance(self.target, CpuTarget):
            raise InternalError(
                f"code for processors is asked for, but the target is {self.target}"
            )
        return self.target

    @property
    def gpu(self) -> CudaTarget:
        """The target of a lowering that is for GPUs only."""
        if not isinstance(self.target, CudaTarget):
            raise InternalError(f"code for GPUs is asked for, but the target is {self.target}")
        return self.target

    # ------------------------------------------------------------------------------------- names

    def type(self, name: str) -> TensorType:
        """The type of a ``%value`` or ``@container``."""
        return self._argument(name).type

    def types_of(self, op: Op) -> dict[str, TensorType]:
        """The types of what an operator reads and of what its region makes."""
        types = {name: self.type(name) for name in op.inputs}
        return types | {inner.result: inner.type for inner in op.region}

    def array(self, name: str) -> str:
        """The SDFG array that holds a ``%value`` or ``@container``; made on first use."""
        argument = self._argument(name)
        if argument.name not in self.arguments:
            shared = argument.role == "value" or argument.name in self._shared
            self._declare(argument, may_alias=shared, place=self._places.get(name))
        return argument.name

    def stride(self, name: str, axis: int) -> Any:
        """Elements between neighbours of a ``%value`` or ``@container`` along an axis."""
        return strides(self.sdfg.arrays[self.array(name)])[axis]

    def is_contiguous(self, name: str) -> bool:
        """Whether the elements of a name lie in row-major order without gaps."""
        tensor = self.type(name)
        return tensor.layout.is_row_major and is_contiguous(tensor, self.place(name))

    def place(self, name: str) -> View:
        """Where the elements of a name lie in its memory."""
        return self._places.get(name) or whole(self.type(name))

    def begin_state(self) -> None:
        """Forgets the values: they are local to a state."""
        self._values, self._places = {}, {}

    def define(self, op: Op) -> None:
        """Makes the result of `op` known; a container is known already."""
        if op.result.startswith("@"):
            return
        name = self._unique(f"v{_identifier(op.result[1:])}")
        slot = str(op.attr("slot", "")) or name
        self._values[op.result] = Argument(name, "value", "", op.type, slot)
        self.array(op.result)

    def define_alias(self, op: Op, of: str, place: View) -> None:
        """Makes the result of `op` the part at `place` of the memory of `of`."""
        root = self._argument(of)
        name = self._unique(f"v{_identifier(op.result[1:])}")
        memory = root.memory or root.type
        alias = Argument(name, root.role, root.container, op.type, root.slot, memory)
        self._values[op.result], self._places[op.result] = alias, place
        self._shared |= {name, root.name}
        if root.name in self.arguments:
            self.sdfg.arrays[root.name].may_alias = True

    def memory(self, name: str) -> tuple[str, str]:
        """Container and slot: two names with the same ones lie in the same memory."""
        argument = self._argument(name)
        return argument.container, argument.slot

    def _argument(self, name: str) -> Argument:
        found = self._values.get(name) or self._containers.get(name)
        if found is None:
            raise InternalError(f"{name} is read but not defined before")
        return found

    def _container(self, container: Container) -> Argument:
        name = self._unique(f"{_PREFIXES[container.role]}_{_identifier(container.name)}")
        if container.role is Role.TEMP:
            return Argument(name, "value", container.name, container.type, container.name)
        role: ArgumentRole = container.role.value
        return Argument(name, role, container.name, container.type)

    def _unique(self, name: str) -> str:
        """`name`, or `name` with a number, as an identifier that nothing else has."""
        candidate, number = name, 1
        while candidate in self._reserved:
            candidate, number = f"{name}_{number}", number + 1
        self._reserved.add(candidate)
        return candidate

    def _declare(self, argument: Argument, may_alias: bool, place: View | None = None) -> None:
        tensor = argument.type
        if not isinstance(tensor.encoding, Dense):
            raise UnsupportedError(f"values stored as {tensor} have no lowering")
        memory = argument.memory or tensor
        room = product(memory.layout.physical_shape(memory.shape))
        place = place or whole(tensor)
        add_array(self.sdfg, argument.name, tensor, place, expression(room), may_alias=may_alias)
        self.sdfg.arrays[argument.name].storage = self.backend.storage
        self.arguments[argument.name] = argument

    # ------------------------------------------------------------------------------------- graph

    def new_state(self, op: Op, suffix: str = "") -> dace.SDFGState:
        """A state after the last one, named after `op`."""
        return self.add_state(f"s{len(self.records)}_{op.kind}{suffix}")

    def add_state(self, label: str) -> dace.SDFGState:
        """A state after the last one."""
        state = dace.SDFGState(label)
        # Else every node searches the Python stack for the line that made it.
        state.set_default_lineinfo(NOWHERE)
        state.nosync = self.backend.nosync
        self.append(state)
        return state

    def add_library_node(
        self, op: Op, node: nodes.LibraryNode, reads: Mapping[str, str], work: Any
    ) -> None:
        """A state in which `node` reads values by connector, and writes the result from ``_o``.

        `work` is its cost in element-wise operations.
        """
        self.works.append(work)
        state = self.new_state(op)
        state.add_node(node)
        for connector, name in reads.items():
            array = self.array(name)
            memlet = dace.Memlet(data=array, subset=everything(self.sdfg.arrays[array]))
            state.add_edge(state.add_read(array), None, node, connector, memlet)
        result = self.array(op.result)
        memlet = dace.Memlet(data=result, subset=everything(self.sdfg.arrays[result]))
        state.add_edge(node, "_o", state.add_write(result), None, memlet)

    def append(self, block: ControlFlowBlock) -> None:
        """Puts a block of control flow after the last one of this region."""
        first = self.last is None
        self.region.add_node(block, is_start_block=first, ensure_unique_name=True)
        if not first:
            self.region.add_edge(self.last, block, dace.InterstateEdge())
        self.last = block

    def enter(self, region: ControlFlowRegion) -> Place:
        """Makes `region` the current one; gives what `leave` takes."""
        outer = self.region, self.last
        self.region, self.last = region, None
        return outer

    def leave(self, outer: Place) -> None:
        """Ends the current region; one that holds nothing gets an empty state."""
        if self.last is None:
            self.add_state("nothing")
        self.region, self.last = outer

    def label(self, name: str) -> str:
        """`name` as a label of the graph."""
        return _identifier(name) or "block"

    def include(self, header: str, locations: Sequence[str] = ()) -> None:
        """Includes a file of ``dfcompiler/kernels`` in the generated sources, or some of them."""
        if header not in self._headers:
            self._headers.append(header)
            for location in locations or self.backend.locations:
                self.sdfg.append_global_code(f'#include "{header}"\n', location)

    def instantiate(self, family: str, template: str) -> None:
        """Asks for an instance of a kernel in the translation unit of its family.

        The unit includes ``cuda/FAMILY.cuh`` and has one line for each instance; the generated
        function includes ``cuda/FAMILY.h``, which declares the templates.

        Args:
            family: such as ``gemm``.
            template: an explicit instantiation: ``template cudaError_t dfc::cuda::gemm<…>(…);``.
        """
        self.include(f"cuda/{family}.h")
        found = self.instances.setdefault(family, [])
        if template not in found:
            found.append(template)

    def expansion(self, op: Op, kind: str, known: Iterable[str], default: str = "native") -> str:
        """The implementation of an operator: what was asked for all of its kind, else `default`.

        Raises:
            UnsupportedError: if it is not among the known ones.
        """
        wanted = self.expansions.get(kind, default)
        if wanted not in known:
            message = f"{kind} has no expansion {wanted!r}; there are {', '.join(sorted(known))}"
            raise UnsupportedError(message, location(op))
        return wanted

    def record(self, record: KernelRecord) -> None:
        """Keeps how an operator was implemented."""
        self.records.append(record)

    def site(self, op: Op, extent: Dim) -> int:
        """The number of a place where an index may be out of range at run time."""
        origin = f" ({op.source})" if op.source else ""
        self.sites.append(
            f"{op.kind}{origin}: index {{value}} is out of range for an axis of {extent}"
        )
        return len(self.sites) - 1

    def status(self) -> str:
        """The array in which a kernel reports a bad index; made on first use."""
        if STATUS not in self.arguments:
            report = TensorType(DType.I64, (2,))
            self._declare(Argument(STATUS, "status", "", report), may_alias=False)
        return STATUS


def location(op: Op) -> tuple[str, str]:
    """The line of an operator and the model's node that it comes from, for messages."""
    return f"{op.result}: {op.type} = {op.kind} {', '.join(op.inputs)}", op.source


def _identifier(name: str) -> str:
    """A part of a C identifier; different names may give the same."""
    return re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
