"""The C interface of an artifact: its header, and the tables behind it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from dfcompiler.codegen.c_expression import c_expression
from dfcompiler.codegen.interface import Interface, unique_identifiers
from dfcompiler.codegen.templates import template
from dfcompiler.codegen.weights import MAGIC, StoredTensor, table_digest
from dfcompiler.ir import Container, DType
from dfcompiler.ir.dims import Dim, show_dim
from dfcompiler.lowering.lowered import Argument
from dfcompiler.lowering.profile import PROFILE
from dfcompiler.target import CudaTarget, Target

_DTYPE_CODES = {dtype: code for code, dtype in enumerate(DType)}


def header(interface: Interface, target: Target) -> str:
    """``model.h``."""
    on_gpu = isinstance(target, CudaTarget)
    return template(
        "model.h",
        {
            "WEIGHTS": "Uploads the weights to the GPU" if on_gpu else "Maps the weights",
            "DEVICE_FUNCTIONS": template("gpu_functions_declared.h", {}) if on_gpu else "",
            "SIGNATURE": _signature(interface),
            "INDEX_ENUMS": _index_enums(interface),
            "MAX_RANK": str(interface.max_rank),
            "INPUTS": str(len(interface.inputs)),
            "OUTPUTS": str(len(interface.outputs)),
            "SYMBOLS": str(len(interface.symbols)),
            "NAME": interface.prefix,
        },
    )


def tables(
    interface: Interface, stored: Sequence[StoredTensor], weight_bytes: int, target: Target
) -> str:
    """``tables.h``: everything of the interface that depends on the model."""
    values = _Values(interface)
    dims: list[str] = []
    inputs = [_tensor_row(c, dims, values) for c in interface.inputs]
    outputs = [_tensor_row(c, dims, values) for c in interface.outputs]
    slots = [str(values.index(slot.bytes, f"slot {slot.name}")) for slot in interface.slots]
    offsets = {tensor.name: tensor.offset for tensor in stored}
    persist = [
        f"{{{_text(c.name)}, {c.type.stored_bytes}, {offsets.get(c.name, -1)}}}"
        for c in interface.persistent
    ]
    symbols = [f"{{{_text(s.name)}, {s.maximum or 0}}}" for s in interface.symbols]
    head = MAGIC + table_digest(stored)
    lines = [
        "// What the compiled program takes and keeps; generated.",
        "#pragma once",
        f"#define MODEL(name) {interface.prefix}_##name",
        *_device_facts(target, interface),
        "",
        f"static const int kSymbols = {len(interface.symbols)}, kInputs = {len(inputs)}, "
        f"kOutputs = {len(outputs)};",
        f"static const int kPersist = {len(persist)}, kSlots = {len(slots)}, "
        f"kValues = {len(values.dims)};",
        f"static const int64_t kWeightBytes = {weight_bytes};",
        f"static const char kWeightHeader[] = {_bytes(head)};",
        "",
        _table("SymbolInfo symbol_table", symbols, "{nullptr, 0}"),
        _table("DimInfo dim_table", dims, '{-1, 0, ""}'),
        _table("TensorInfo input_table", inputs, "{nullptr, 0, 0, 0}"),
        _table("TensorInfo output_table", outputs, "{nullptr, 0, 0, 0}"),
        _table("PersistInfo persist_table", persist, "{nullptr, 0, -1}"),
        _table("int slot_values", slots, "0"),
        _table("char *const value_texts", [_text(t) for t in values.texts], '""'),
        _table("char *const site_table", [_text(s) for s in interface.sites], '""'),
        _evaluate(interface, values),
        _calls(interface, offsets),
        *_device_calls(target),
    ]
    return "\n".join(lines)


def _measured(interface: Interface) -> int:
    """How many operators an artifact measures; 0 for all but measuring ones."""
    last = interface.outputs[-1] if interface.outputs else None
    if last is None or last.name != PROFILE:
        return 0
    (stamps,) = last.type.shape
    return int(stamps) - 1


def _device_facts(target: Target, interface: Interface) -> list[str]:
    """What the generated code runs on."""
    if not isinstance(target, CudaTarget):
        return ["#define RUNS_ON_GPU 0"]
    number = target.arch.rstrip("af")
    exact = "false" if number == target.arch else "true"
    return [
        "#define RUNS_ON_GPU 1",
        f"#define TARGET_NAME {_text(target.name)}",
        f"static const int kMajor = {number[:-1]}, kMinor = {number[-1]};",
        f"static const bool kExactArchitecture = {exact};  // or newer ones of the same kind",
        f"static const int kMeasured = {_measured(interface)};  // operators; last output",
    ]


def _device_calls(target: Target) -> list[str]:
    if not isinstance(target, CudaTarget):
        return []
    return [
        'extern "C" void __dace_gpu_set_all_streams(void *, void *);',
        "static void use_stream(void *program, void *stream) {",
        "  __dace_gpu_set_all_streams(program, stream);",
        "}",
        "",
    ]


class _Values:
    """The size expressions of an interface, each once."""

    def __init__(self, interface: Interface) -> None:
        self.symbols = {s.name: i for i, s in enumerate(interface.symbols)}
        self.dims: list[Dim] = []
        self.texts: list[str] = []
        self._seen: dict[str, int] = {}

    def index(self, dim: Dim, what: str) -> int:
        text = show_dim(dim)
        if text not in self._seen:
            self._seen[text] = len(self.dims)
            self.dims.append(dim)
            self.texts.append(what)
        return self._seen[text]


def _tensor_row(container: Container, dims: list[str], values: _Values) -> str:
    first = len(dims)
    for axis, dim in enumerate(container.type.shape):
        symbol = -1 if isinstance(dim, int) or not dim.is_Symbol else values.symbols[dim.name]
        value = values.index(dim, f"axis {axis} of {container.name}")
        dims.append(f"{{{symbol}, {value}, {_text(show_dim(dim))}}}")
    dtype = _DTYPE_CODES[container.type.dtype]
    return f"{{{_text(container.name)}, {dtype}, {container.type.rank}, {first}}}"


def _evaluate(interface: Interface, values: _Values) -> str:
    names = {s.name: f"wide(s[{i}])" for i, s in enumerate(interface.symbols)}
    lines = [
        f"  value[{i}] = {c_expression(dim, names)};  // {show_dim(dim)}"
        for i, dim in enumerate(values.dims)
    ]
    head = "static void evaluate(const int64_t *s, wide *value) {\n  (void)s, (void)value;"
    return "\n".join([head, *lines, "}", ""])


def _calls(interface: Interface, offsets: Mapping[str, int]) -> str:
    """The generated functions' declarations and calls.

    Pointers are declared ``void *``: the C interface needs no type of DaCe, and in the platform's
    calling convention all data pointers are passed alike.
    """
    name = interface.program_name
    pointers = ["void *"] * (len(interface.arguments) + 1)
    sizes = ["int64_t"] * len(interface.call_symbols)
    places = _Places(interface, offsets)
    index = {s.name: i for i, s in enumerate(interface.symbols)}
    arguments = [
        "program",
        *map(places.of, interface.arguments),
        *(f"s[{index[symbol]}]" for symbol in interface.call_symbols),
    ]
    joined = ",\n      ".join(arguments)
    return "\n".join(
        [
            f'extern "C" void *__dace_init_{name}({", ".join(sizes)});',
            f'extern "C" int __dace_exit_{name}(void *);',
            f'extern "C" void __program_{name}({", ".join([*pointers, *sizes])});',
            "",
            "// The program allocates nothing, so its init does not depend on the sizes.",
            f"static void *start_program() {{ return __dace_init_{name}"
            f"({', '.join(['1'] * len(sizes))}); }}",
            f"static void stop_program(void *program) {{ __dace_exit_{name}(program); }}",
            "static void call_program(void *program, const Memory &m, const int64_t *s) {",
            "  (void)m, (void)s;",
            f"  __program_{name}(\n      {joined});",
            "}",
            "",
        ]
    )


class _Places:
    """Where the memory of each argument lies, as C."""

    def __init__(self, interface: Interface, offsets: Mapping[str, int]) -> None:
        self.inputs = {c.name: i for i, c in enumerate(interface.inputs)}
        self.outputs = {c.name: i for i, c in enumerate(interface.outputs)}
        self.persistent = {c.name: i for i, c in enumerate(interface.persistent)}
        self.slots = {slot.name: i for i, slot in enumerate(interface.slots)}
        self.offsets = offsets

    def of(self, argument: Argument) -> str:
        match argument.role:
            case "input":
                return f"m.inputs[{self.inputs[argument.container]}]"
            case "output":
                return f"m.outputs[{self.outputs[argument.container]}]"
            case "persist":
                return f"m.persist + m.persist_offsets[{self.persistent[argument.container]}]"
            case "weight":
                return f"m.weights + {self.offsets[argument.container]}"
            case "value":
                return f"m.arena + m.slots[{self.slots[argument.slot]}]"
            case "status":
                return "m.status"


def _table(declaration: str, rows: Iterable[str], empty: str) -> str:
    """A constant array; C++ has none without elements, so an empty one gets a dummy."""
    body = ",\n    ".join(rows) or empty
    return f"static const {declaration}[] = {{\n    {body}}};"


def _text(text: str) -> str:
    """A C string literal."""
    escaped = "".join(
        chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode()
    )
    return f'"{escaped}"'


def _bytes(data: bytes) -> str:
    return '"' + "".join(f"\\{b:03o}" for b in data) + '"'


def _signature(interface: Interface) -> str:
    lines = [f" *   input {_shown(c)}" for c in interface.inputs]
    lines += [f" *   output {_shown(c)}" for c in interface.outputs]
    lines += [f" *   keeps {_shown(c)}" for kept in interface.persistent for c in kept.pieces]
    for symbol in interface.symbols:
        limit = f" <= {symbol.maximum}" if symbol.maximum is not None else ""
        place = interface.fixed_by(symbol.name) or "given with the call"
        lines.append(f" *   size {symbol.name}{limit}: {_comment(place)}")
    return "\n".join(lines)


def _shown(container: Container) -> str:
    return _comment(f"{container.name}: {container.type}")


def _comment(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)[1:-1].replace("*/", "* /").replace('\\"', '"')


def _index_enums(interface: Interface) -> str:
    groups = {
        "INPUT": [c.name for c in interface.inputs],
        "OUTPUT": [c.name for c in interface.outputs],
        "SYMBOL": [s.name for s in interface.symbols],
    }
    lines = []
    for group, names in groups.items():
        words = unique_identifiers(names)
        rows = [
            f"  {interface.prefix}_{group}_{word} = {i}"
            + ("" if i + 1 == len(words) else ",")
            + (f"  /* {_comment(name)} */" if word != name else "")
            for i, (word, name) in enumerate(zip(words, names, strict=True))
        ]
        if rows:
            lines += ["enum {", *rows, "};"]
    return "\n".join(lines)
