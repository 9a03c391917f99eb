"""The executable specification of a valid program."""

from __future__ import annotations

from collections.abc import Mapping

from dfcompiler.errors import VerifyError
from dfcompiler.ir.dims import Dim, free_symbols
from dfcompiler.ir.operators import OPERATORS
from dfcompiler.ir.printer import show_op
from dfcompiler.ir.program import Block, Branch, Container, Loop, Op, Program, Role, State
from dfcompiler.ir.types import DType, TensorType


def verify(program: Program) -> Program:
    """Checks names, types, roles and symbols; returns the program itself.

    Raises:
        VerifyError: at the first operator, container or block that breaks a rule.
    """
    _Verifier(program).run()
    return program


class _Verifier:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.containers: Mapping[str, Container] = program.table()
        self.written: set[str] = set()
        self.names: set[str] = set()

    def run(self) -> None:
        program = self.program
        if len(self.containers) != len(program.containers):
            raise VerifyError(f"program {program.name} declares a container name twice")
        symbols = {symbol.name for symbol in program.symbols}
        for container in program.containers:
            self.check_symbols(container.type, symbols, f"container @{container.name}")
            self.check_layout(container)
            self.check_data(container)
            self.check_parts(container)
        self.blocks(program.body, symbols)
        for output in program.outputs:
            if output.name not in self.written:
                raise VerifyError(f"output @{output.name} is never written")

    def check_layout(self, container: Container) -> None:
        if container.type.layout != container.type.layout.unpadded():
            raise VerifyError(
                f"container @{container.name} has gaps between its rows: {container.type}",
                hint="only values may have a padded layout: callers read containers without gaps",
            )

    def check_data(self, container: Container) -> None:
        data = self.program.data.get(container.name)
        if data is None:
            return
        expected = (container.type.dtype.numpy, container.type.shape)
        if (data.dtype, data.shape) != expected:
            raise VerifyError(
                f"the data of @{container.name} is {data.dtype}{list(data.shape)}, "
                f"its type {container.type}"
            )

    def check_parts(self, container: Container) -> None:
        """Parts are all of a persistent container; nothing else is called like one of them."""
        parts = container.parts
        if not parts:
            return
        where = f"container @{container.name} is {container.role.value} {container.type}"
        if container.role is not Role.PERSIST or container.type.shape[:1] != (len(parts),):
            raise VerifyError(f"{where}; expected persistent state of {len(parts)} parts")
        known = [name for other in self.program.containers for name in (other.name, *other.parts)]
        twice = next((name for name in parts if known.count(name) > 1), None)
        if twice is not None:
            raise VerifyError(f"{where}; something else is called @{twice} like a part of it")

    def blocks(self, blocks: tuple[Block, ...], symbols: set[str]) -> None:
        for block in blocks:
            if block.name in self.names:
                raise VerifyError(f"two blocks are called {block.name}")
            self.names.add(block.name)
            match block:
                case State():
                    self.state(block, symbols)
                case Loop():
                    self.known_symbols((block.start, block.stop), symbols, f"loop {block.name}")
                    if block.until:
                        self.flag(block.until, f"loop {block.name}")
                    self.blocks(block.body, symbols | {block.variable})
                case Branch():
                    self.flag(block.condition, f"branch {block.name}")
                    self.blocks(block.then, symbols)
                    self.blocks(block.orelse, symbols)

    def flag(self, name: str, where: str) -> None:
        container = self.containers.get(name.removeprefix("@"))
        if container is None or container.type != TensorType(DType.BOOL):
            raise VerifyError(f"{where} asks {name}, which is no container of type bool[]")

    def state(self, state: State, symbols: set[str]) -> None:
        values: dict[str, TensorType] = {}
        for index, op in enumerate(state.ops):
            where = (f"state {state.name}, op {index}" + (f", from {op.source}" * bool(op.source)),)
            try:
                self.op(op, values, symbols)
            except ValueError as error:
                raise VerifyError(str(error), (*where, f"  > {show_op(op)}")) from error
            if op.result.startswith("@"):
                self.write(op, where)
            else:
                values[op.result] = op.type

    def write(self, op: Op, where: tuple[str, ...]) -> None:
        container = self.containers.get(op.result[1:])
        where = (*where, f"  > {show_op(op)}")
        if container is None:
            raise VerifyError(f"{op.result} is written but not declared", where)
        if container.role in (Role.INPUT, Role.WEIGHT):
            raise VerifyError(f"{op.result} is a {container.role.value} and is written", where)
        if not op.type.same(container.type):
            raise VerifyError(f"{op.result} is {container.type}, written with {op.type}", where)
        self.written.add(container.name)

    def op(self, op: Op, values: Mapping[str, TensorType], symbols: set[str]) -> None:
        """Raises ValueError when the operator breaks a rule."""
        spec = OPERATORS.get(op.kind)
        if spec is None:
            raise ValueError(f"there is no operator {op.kind}")
        if op.result in values:
            raise ValueError(f"{op.result} is assigned twice")
        types = [self.type_of(name, values) for name in op.inputs]
        least, most = spec.arity
        if len(types) < least or (most >= 0 and len(types) > most):
            raise ValueError(f"{op.kind} takes {least} to {most} inputs, found {len(types)}")
        missing = [name for name in spec.attrs if name not in op.attrs]
        if missing:
            raise ValueError(f"{op.kind} lacks the attribute {', '.join(missing)}")
        self.check_symbols(op.type, symbols, op.result)
        check_expansion(op)
        if op.region:
            inner = dict(zip(op.inputs, types, strict=True))
            for inner_op in op.region:
                self.op(inner_op, inner, symbols)
                inner[inner_op.result] = inner_op.type
        found = spec.infer(op, types)
        if found.dtype is not op.type.dtype or not op.type.with_shape(found.shape).same(
            op.type.with_shape(op.type.shape)
        ):
            raise ValueError(f"{op.result} is declared {op.type}, but {op.kind} gives {found}")

    def type_of(self, name: str, values: Mapping[str, TensorType]) -> TensorType:
        if name in values:
            return values[name]
        if name.startswith("@") and name[1:] in self.containers:
            return self.containers[name[1:]].type
        raise ValueError(f"{name} is read but not defined before")

    def check_symbols(self, tensor: TensorType, symbols: set[str], where: str) -> None:
        self.known_symbols(tensor.shape, symbols, where)

    def known_symbols(self, dims: tuple[Dim, ...], symbols: set[str], where: str) -> None:
        unknown = free_symbols(*dims) - symbols
        if unknown:
            raise VerifyError(f"{where} uses the undeclared symbol {', '.join(sorted(unknown))}")


def check_expansion(op: Op) -> None:
    """Raises ValueError where an operator names an expansion and is no product, or names none."""
    if "expansion" not in op.attrs:
        return
    if not any(inner.kind == "matmul" for inner in (op, *op.region)):
        raise ValueError(f"{op.kind} has no expansions; only matrix products do")
    name = op.attrs["expansion"]
    if not isinstance(name, str) or not name:
        raise ValueError(f"an expansion is a name, not {name!r}")
