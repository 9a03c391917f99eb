"""Matrix products and attention, kernel by kernel: shares of the ceilings, and against torch.

Every round measures two ceilings, our kernel, the ceilings again and torch's kernel, each as the
fastest of the calls within a millisecond or two: other work on a shared machine only ever makes a
call slower. The ceilings are multiply-adds with all operands in registers, and the register tile of
a matrix product with operands in the L1, which is what a product can reach at most. Shares and
ratios are of figures from one round; medians and quartiles are over rounds. One thread is timed by
its own processor time, which does not count when others run.
Weights alternate between copies of some tens of megabytes together, as the layers of a
model do; what stays in cache is at an advantage that no model gives.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from dfcompiler.codegen.toolchain import NUMERIC_FLAGS
from dfcompiler.codegen.weights import pack
from dfcompiler.ir.types import Layout, PhysicalAxis
from dfcompiler.target import parse_target

# M, N, K of MiniLM's and BERT-base's layers and of their decoding counterparts.
PRODUCTS = (
    *((1024, n, k) for n, k in ((1152, 384), (384, 384), (1536, 384), (384, 1536))),
    *((128, n, k) for n, k in ((1152, 384), (384, 384), (1536, 384), (384, 1536))),
    *((16, n, k) for n, k in ((1152, 384), (384, 384), (1536, 384), (384, 1536))),
    *((128, n, k) for n, k in ((2304, 768), (768, 768), (3072, 768), (768, 3072))),
    *((1, n, k) for n, k in ((1536, 384), (768, 3072), (3072, 768), (4096, 4096))),
    (4, 3072, 768),
)
GELU_PRODUCTS = ((1024, 1536, 384), (128, 3072, 768))
INT8_PRODUCTS = ((1, 4096, 4096), (128, 1536, 384))
MATMULS = ((1024, 384, 384), (128, 1536, 384))
# batch, heads, key heads, queries, keys, width, causal
ATTENTIONS = (
    (8, 12, 12, 128, 128, 32, False),
    (1, 12, 12, 128, 128, 32, False),
    (1, 12, 12, 16, 16, 32, False),
    (1, 12, 12, 512, 512, 64, False),
    (1, 9, 3, 256, 256, 64, True),
    (1, 9, 3, 1, 1024, 64, True),
)
WEIGHT_BYTES = 48 << 20
RUN_SECONDS = 0.002
CEILING_SECONDS = 0.003


@dataclass(frozen=True)
class Case:
    """One kernel at one size.

    Attributes:
        flops: operations of one call.
        bytes: bytes of the operand that one call must stream: the weight, or keys and values.
        ours: one call of ours.
        peer: one call of torch.
    """

    kernel: str
    shape: tuple[int, ...]
    flops: float
    bytes: float
    ours: Callable[[], object]
    peer: Callable[[], object]


def main() -> None:
    """Measures every case and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read when libgomp is loaded

    import torch

    from benchmarks import record
    from dfcompiler.reference.ceilings import measure_ceilings

    torch.set_num_threads(options.threads)
    kernels = build()
    bandwidth = measure_ceilings(options.threads, 0.5).read_gbps
    rows = []
    for case in cases(kernels):
        if options.only in case.kernel:
            rows.append(measure(case, options.rounds, options.threads, bandwidth))
    data = {
        "threads": options.threads,
        "rounds": options.rounds,
        "read_gbps": bandwidth,
        "machine": record.machine(),
        "cases": rows,
    }
    record.write("kernels", data, _text(data))


def build() -> ctypes.CDLL:
    """The kernels, compiled as an artifact's are."""
    target = parse_target("cpu")
    here = Path(__file__).parent
    include = here.parent / "dfcompiler" / "kernels"
    with tempfile.TemporaryDirectory(prefix="dfcompiler-kernels-") as folder:
        library = Path(folder) / "kernels.so"
        flags = ("-O3", "-std=c++20", *NUMERIC_FLAGS, "-fopenmp", "-fPIC", "-shared")
        source = str(here / "kernels.cpp")
        command = ["g++", *flags, *target.flags, f"-I{include}", source, "-o", str(library)]
        subprocess.run(command, check=True)
        return ctypes.CDLL(str(library))


def cases(kernels: ctypes.CDLL) -> list[Case]:
    """All cases."""
    return [
        *(_linear(kernels, "linear", shape) for shape in PRODUCTS),
        *(_linear(kernels, "linear_gelu", shape) for shape in GELU_PRODUCTS),
        *(_linear(kernels, "linear_int8", shape) for shape in INT8_PRODUCTS),
        *(_matmul(kernels, shape) for shape in MATMULS),
        *(_attention(kernels, shape) for shape in ATTENTIONS),
    ]


def measure(case: Case, rounds: int, threads: int, bandwidth: float) -> dict[str, Any]:
    """Shares and ratios of one case."""
    from dfcompiler.reference.ceilings import measure_rates

    target = parse_target("cpu")
    clock = time.thread_time if threads == 1 else time.perf_counter
    ours, peer, fma, tile = [], [], [], []
    for _ in range(rounds):
        before = measure_rates(target, threads, CEILING_SECONDS)
        ours.append(_fastest(case.ours, clock))
        after = measure_rates(target, threads, CEILING_SECONDS)
        fma.append((before.fma_gflops + after.fma_gflops) / 2)
        tile.append((before.tile_gflops + after.tile_gflops) / 2)
        time.sleep(0.004)  # the idle threads of one pool stop spinning
        peer.append(_fastest(case.peer, clock))
        time.sleep(0.004)
    ratios = [b / a for a, b in zip(ours, peer, strict=True)]
    middle_s = median(ours)
    row = {
        "kernel": case.kernel,
        "shape": case.shape,
        "median_us": middle_s * 1e6,
        "gflops": case.flops / middle_s * 1e-9,
        "share_of_ceiling": _share(case, ours, fma),
        "share_of_tile": _share(case, ours, tile),
        "stream_gbps": case.bytes / middle_s * 1e-9,
        "share_of_bandwidth": case.bytes / middle_s * 1e-9 / bandwidth,
        "torch_times_ours": [float(q) for q in np.percentile(ratios, (25, 50, 75))],
    }
    print(_line(row), flush=True)
    return row


def _share(case: Case, seconds: list[float], gflops: list[float]) -> float:
    """What part of a rate measured beside it a kernel reaches."""
    return median(case.flops / t * 1e-9 / rate for t, rate in zip(seconds, gflops, strict=True))


def _fastest(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds of the fastest call within `RUN_SECONDS`, after two that are not counted."""
    run()
    run()
    fastest, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < RUN_SECONDS:
        before = clock()
        run()
        fastest = min(fastest, clock() - before)
    return fastest


class _Rotation:
    """Calls a function with one argument tuple after another."""

    def __init__(self, function: Callable[..., object], arguments: list[tuple[Any, ...]]) -> None:
        self.function, self.arguments, self.next = function, arguments, 0

    def __call__(self) -> object:
        self.next = (self.next + 1) % len(self.arguments)
        return self.function(*self.arguments[self.next])


def _linear(kernels: ctypes.CDLL, name: str, shape: tuple[int, int, int]) -> Case:
    import torch

    m, n, k = shape
    random = np.random.default_rng(0)
    width = parse_target("cpu").gemm_nr
    order = (PhysicalAxis(1, width), PhysicalAxis(0), PhysicalAxis(1, width, inner=True))
    a = _aligned(random.standard_normal((m, k)).astype(np.float32))
    bias = _aligned(random.standard_normal(n).astype(np.float32))
    c = _aligned(np.zeros((m, n), np.float32))
    b = random.standard_normal((k, n)).astype(np.float32)
    if name == "linear_int8":
        b = random.integers(-127, 128, (k, n)).astype(np.int8)
    copies = max(1, WEIGHT_BYTES // b.nbytes)
    packed = [_aligned(pack(b, Layout(order))) for _ in range(copies)]
    ours = [(m, n, k, *_pointers(a, one, c, bias)) for one in packed]
    x, offset = torch.from_numpy(a), torch.from_numpy(bias)
    transposed = np.ascontiguousarray(b.T.astype(np.float32))
    theirs = [(x, torch.from_numpy(transposed.copy()), offset) for _ in range(copies)]
    peer = _torch_linear_gelu if name == "linear_gelu" else torch.nn.functional.linear
    return Case(
        name,
        shape,
        2.0 * m * n * k,
        b.nbytes,
        _Rotation(kernels[name], [_longs(*values) for values in ours]),
        _Rotation(peer, theirs),
    )


def _torch_linear_gelu(x: Any, weight: Any, bias: Any) -> Any:
    import torch

    return torch.nn.functional.gelu(torch.nn.functional.linear(x, weight, bias))


def _matmul(kernels: ctypes.CDLL, shape: tuple[int, int, int]) -> Case:
    import torch

    m, n, k = shape
    random = np.random.default_rng(0)
    a, b = (_aligned(random.standard_normal(s).astype(np.float32)) for s in ((m, k), (k, n)))
    c = _aligned(np.zeros((m, n), np.float32))
    arguments = _longs(m, n, k, *_pointers(a, b, c))
    left, right = torch.from_numpy(a), torch.from_numpy(b)
    return Case(
        "matmul",
        shape,
        2.0 * m * n * k,
        b.nbytes,
        _Rotation(kernels.matmul, [arguments]),
        lambda: torch.matmul(left, right),
    )


def _attention(kernels: ctypes.CDLL, shape: tuple[int, int, int, int, int, int, bool]) -> Case:
    import torch

    batch, heads, key_heads, queries, keys, width, causal = shape
    random = np.random.default_rng(0)

    def tensor(*extents: int) -> np.ndarray:
        return _aligned(random.standard_normal(extents).astype(np.float32))

    q, o = tensor(batch, heads, queries, width), tensor(batch, heads, queries, width)
    k, v = (tensor(batch, key_heads, keys, width) for _ in range(2))
    mask = _aligned(np.zeros((batch, 1, 1, keys), np.float32))
    arguments = _longs(*shape, *_pointers(q, k, v, mask, o))
    tensors = [torch.from_numpy(x) for x in (q, k, v)]
    hidden = None if causal else torch.from_numpy(mask)
    is_causal = causal and queries > 1
    seen = 0.5 if is_causal else 1.0

    def peer() -> Any:
        return torch.nn.functional.scaled_dot_product_attention(
            *tensors, attn_mask=hidden, is_causal=is_causal, enable_gqa=heads != key_heads
        )

    return Case(
        "attention",
        shape,
        4.0 * seen * batch * heads * queries * keys * width,
        k.nbytes + v.nbytes,
        _Rotation(kernels.attention, [arguments]),
        peer,
    )


def _pointers(*arrays: np.ndarray) -> list[ctypes.c_void_p]:
    return [array.ctypes.data_as(ctypes.c_void_p) for array in arrays]  # keeps the array alive


def _longs(*values: Any) -> tuple[Any, ...]:
    return tuple(ctypes.c_long(v) if isinstance(v, int) else v for v in values)


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy on a page boundary."""
    memory = np.empty(array.nbytes + 4096, np.uint8)
    start = -memory.ctypes.data % 4096
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


_HEADER = (
    "kernel",
    "shape",
    "median µs",
    "GFLOP/s",
    "of FMA ceiling",
    "of L1-fed tile",
    "GB/s streamed",
    "torch's time / ours (quartiles)",
)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    low, middle, high = row["torch_times_ours"]
    return (
        row["kernel"],
        " × ".join(map(str, row["shape"])),
        f"{row['median_us']:.1f}",
        f"{row['gflops']:.0f}",
        f"{row['share_of_ceiling']:.0%}",
        f"{row['share_of_tile']:.0%}",
        f"{row['stream_gbps']:.1f}",
        f"{middle:.2f} ({low:.2f}–{high:.2f})",
    )


def _line(row: dict[str, Any]) -> str:
    return "  ".join(_cells(row))


def _text(data: dict[str, Any]) -> str:
    from benchmarks import record

    return (
        "# CPU kernels\n\n"
        f"{data['threads']} threads, {data['rounds']} interleaved rounds. "
        f"{record.machine_line(data['machine'])}"
        f"Reading memory: {data['read_gbps']:.1f} GB/s. Products are M × N × K; attention is batch "
        "× heads × key heads × queries × keys × width × causal.\n\n"
        + record.markdown_table(_HEADER, map(_cells, data["cases"]))
    )


if __name__ == "__main__":
    main()
