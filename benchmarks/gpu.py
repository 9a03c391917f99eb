"""Our GPU code against torch eager and torch.compile, as shares of the machine's ceilings.

    python -m benchmarks.gpu prepare FOLDER     anywhere with nvcc: cross-compiles the artifacts
    python -m benchmarks.gpu run FOLDER         on the GPU: Python, numpy, torch; nine minutes

Every case is checked against torch in float64 first, on fresh inputs and poisoned outputs, and
counts only if its error is at most 1.5 times that of torch in the same precision. Then ours, torch
eager and torch.compile (max-autotune) take turns, with and without CUDA graphs, timed by events.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_cases import CASES, Case

ROUNDS, WARM_UP, BUDGET_S = 15, 3, 540.0
ROUND_S = 2e-3
"""Work of one round is repeated until it takes about so long."""
Call = Callable[[], object]


def prepare(folder: Path, target: str, cases: Sequence[Case] = CASES) -> None:
    """Compiles an artifact for every case that has none in `folder` yet."""
    import dfcompiler as dfc

    for case in cases:
        out = folder / f"{case.name}.dfc"
        if not out.exists():
            print(f"{case.name}: compiling for {target}", file=sys.stderr, flush=True)
            with torch.no_grad():
                dfc.compile(case.module(), out, target=target, example_inputs=case.example(0))


def run(folder: Path, cases: Sequence[Case] = CASES, budget_s: float = BUDGET_S) -> dict[str, Any]:
    """Checks and times the artifacts in `folder`; cases for which no time is left say so."""
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu: torch finds no CUDA device; 'run' needs one")
    start = time.monotonic()
    ceilings = measure_ceilings()
    rows: list[dict[str, Any]] = []
    for case in cases:
        if not (folder / f"{case.name}.dfc").is_dir():
            rows.append({"case": case.name, "left_out": "it has no artifact"})
        elif time.monotonic() - start > budget_s:
            rows.append({"case": case.name, "left_out": f"{budget_s:.0f} s were over"})
        else:
            rows.append(measure(case, folder / f"{case.name}.dfc", ceilings))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        torch.cuda.empty_cache()
    machine = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    return {"schema_version": 1, "machine": machine, "ceilings": ceilings, "rows": rows}


def measure_ceilings() -> dict[str, float]:
    """Bytes a second of a device copy, and flops a second of a large bf16 product."""
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = take_turns(
        {"copy": lambda: target.copy_(source), "product": lambda: torch.matmul(a, b)}, elapsed
    )
    copy_s, product_s = (statistics.median(times[name]) for name in ("copy", "product"))
    return {
        "copy_bytes_per_s": 2.0 * source.nbytes / copy_s,
        "bf16_flops_per_s": 2.0 * 8192**3 / product_s,
    }


def measure(case: Case, artifact: Path, ceilings: Mapping[str, float]) -> dict[str, Any]:
    """The row of a case: errors, seconds, ratios, share of the ceiling."""
    from dfcompiler.runtime import load

    module = case.module().cuda()
    inputs = case.example(int(time.time()), "cuda")
    with torch.no_grad():
        exact = copy.deepcopy(module).double()(*(value.double() for value in inputs.values()))
        theirs = module(*inputs.values())
        model: Any = load(artifact)
        model.use_stream(torch.cuda.current_stream().cuda_stream)
        ours = torch.full_like(theirs, float("nan"))
        (name,) = model.run(inputs)
        run_ours = lambda: model.run(inputs, {name: ours})  # noqa: E731
        run_ours()
        model.synchronize()
        errors = {"ours": error(ours, exact), "torch": error(theirs, exact)}
        del exact
        compiled = torch.compile(module, mode="max-autotune-no-cudagraphs")
        plain: dict[str, Call] = {
            "ours": run_ours,
            "eager": lambda: module(*inputs.values()),
            "compile": lambda: compiled(*inputs.values()),
        }
        seconds = medians(take_turns(plain, elapsed))
        graphs = {name: captured(call) for name, call in plain.items() if name != "ours"}
        model.keep_graphs(True)
        graphs["ours"] = run_ours
        seconds |= {f"{n}_graph": s for n, s in medians(take_turns(graphs, elapsed)).items()}
    return row_of(case, errors, seconds, ceilings)


def row_of(
    case: Case,
    errors: Mapping[str, float],
    seconds: Mapping[str, float],
    ceilings: Mapping[str, float],
) -> dict[str, Any]:
    """What is reported about a case."""
    best = min(seconds["ours"], seconds["ours_graph"])
    bound = case.flops / ceilings["bf16_flops_per_s"]
    bound = max(bound, case.moved_bytes / ceilings["copy_bytes_per_s"])
    return {
        "case": case.name,
        "dtype": str(case.dtype).removeprefix("torch."),
        "errors": dict(errors),
        "right": errors["ours"] <= 1.5 * errors["torch"],
        "seconds": dict(seconds),
        "over": {
            name: seconds[name] / seconds["ours_graph" if name.endswith("_graph") else "ours"]
            for name in seconds
            if not name.startswith("ours")
        },
        "share_of_ceiling": bound / best,
    }


def error(found: Tensor, exact: Tensor) -> float:
    """Relative Frobenius error; infinite where anything is not a number."""
    difference = torch.linalg.vector_norm(found.double() - exact)
    relative = float(difference / torch.linalg.vector_norm(exact))
    return relative if relative == relative else float("inf")


def take_turns(
    calls: Mapping[str, Call], timed: Callable[[Call, int], float], rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Seconds of each call in every round, after a warm-up; a round times each of them once."""
    repeats = {}
    for name, call in calls.items():
        for _ in range(WARM_UP):
            call()
        repeats[name] = max(1, min(200, int(ROUND_S / max(timed(call, 1), 1e-7))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(timed(call, repeats[name]))
    return times


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: statistics.median(values) for name, values in times.items()}


def elapsed(call: Call, repeats: int) -> float:
    """Seconds of one call on the device, over `repeats` of them."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / repeats


def captured(call: Call) -> Call:
    """The replay of a CUDA graph of one call."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    ceilings, machine = result["ceilings"], result["machine"]
    peers = ("eager", "compile", "eager_graph", "compile_graph")
    lines = [
        f"{machine['gpu']}, torch {machine['torch']}; copy "
        f"{ceilings['copy_bytes_per_s'] / 1e12:.2f} TB/s, bf16 product "
        f"{ceilings['bf16_flops_per_s'] / 1e12:.0f} TFLOP/s. Ratios: their time over ours.",
        "",
        f"| case | ours µs | with graph | {' | '.join(peers)} | of ceiling | error over torch's |",
        f"| --- |{' --: |' * (len(peers) + 4)}",
    ]
    for row in result["rows"]:
        if "left_out" in row:
            lines.append(
                f"| {row['case']} | left out: {row['left_out']} |{' |' * (len(peers) + 3)}"
            )
            continue
        seconds, errors = row["seconds"], row["errors"]
        cells = [
            *(f"{seconds[name] * 1e6:.1f}" for name in ("ours", "ours_graph")),
            *(f"{row['over'][name]:.2f}x" for name in peers),
            f"{row['share_of_ceiling']:.0%}",
            f"{errors['ours'] / errors['torch']:.2f}{'' if row['right'] else ' WRONG'}",
        ]
        lines.append(f"| {row['case']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepares artifacts, or runs them and writes ``gpu.json`` and ``gpu.md`` beside them."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu")
    parser.add_argument("what", choices=("prepare", "run"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", default="cuda:sm_90")
    parser.add_argument("--case", action="append", help="only this one; may be repeated")
    given = parser.parse_args(arguments)
    cases = [case for case in CASES if not given.case or case.name in given.case]
    if given.what == "prepare":
        given.folder.mkdir(parents=True, exist_ok=True)
        prepare(given.folder, given.target, cases)
        return
    result = run(given.folder, cases)
    (given.folder / "gpu.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (given.folder / "gpu.md").write_text(table(result), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
