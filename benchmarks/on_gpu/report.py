"""Rows of `benchmarks.gpu` as ratios and shares of ceilings, and as tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.on_gpu.checks import PREFIX
from benchmarks.on_gpu.goals import outcomes
from benchmarks.on_gpu.markdown import NOTHING, markdown
from benchmarks.on_gpu.report_checks import checks_table

PLAIN = ("eager", "compile", "flash", "cudnn", "onnxruntime", "jax")
PEERS = (*PLAIN, "eager_graph", "compile_graph")
"""Columns of the table; with graphs against ours with graphs."""


def result_of(
    machine: Mapping[str, Any],
    ceilings: Mapping[str, Mapping[str, float]],
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Everything that is reported.

    Args:
        machine: device and versions.
        ceilings: measured ``before`` and ``after``; shares are of the greater ones.
        rows: as measured.
    """
    kinds = {kind for found in ceilings.values() for kind in found}
    greatest = {kind: max(found.get(kind, 0.0) for found in ceilings.values()) for kind in kinds}
    timed = [row for row in rows if not row["case"].startswith(PREFIX)]
    done = [with_ratios(row, greatest) for row in timed]
    return {
        "schema_version": 3,
        "machine": dict(machine),
        "ceilings": {when: dict(found) for when, found in ceilings.items()},
        "checks": [dict(row) for row in rows if row not in timed],
        "must_show": outcomes(done),
        "rows": done,
    }


def with_ratios(row: Mapping[str, Any], ceilings: Mapping[str, float]) -> dict[str, Any]:
    """A row with medians and spreads, and for each of our artifacts ratios and shares."""
    rounds = row.get("rounds", {})
    seconds = {name: statistics.median(times) for name, times in rounds.items()}
    return {
        **row,
        "seconds": seconds,
        "spread": {name: spread(times) for name, times in rounds.items()},
        "ours": {
            name: _standing(name, row, seconds, ceilings)
            for name in seconds
            if name.startswith("ours") and not name.endswith("_graph")
        },
    }


def _standing(
    name: str, row: Mapping[str, Any], seconds: Mapping[str, float], ceilings: Mapping[str, float]
) -> dict[str, Any]:
    """How one of our artifacts stands: ``over`` each peer, ``share`` of the ceiling, ``error``."""
    graph = f"{name}_graph"
    over = {}
    for peer in PEERS:
        mine = graph if peer.endswith("_graph") else name
        if peer in seconds and mine in seconds:
            over[peer] = seconds[peer] / seconds[mine]
    bound = row["flops"] / ceilings["bf16_flops_per_s"]
    bound = max(bound, row["moved_bytes"] / ceilings["copy_bytes_per_s"])
    errors = row["errors"]
    return {
        "over": over,
        "share": bound / min(seconds[one] for one in (name, graph) if one in seconds),
        "error": max(errors[one] for one in (name, graph) if one in errors) / errors["torch"],
    }


def spread(times: Sequence[float]) -> float:
    """Half of the rounds lie within so much, as a share of the median."""
    if len(times) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / middle


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    rows, machine = result["rows"], result["machine"]
    header = ("case", "µs", "with graph", "spread", *PEERS, "of ceiling", "error over torch's")
    lines = [
        f"{machine['gpu']}, driver {machine['driver']}, CUDA {machine['cuda']}, torch "
        f"{machine['torch']}. {_ceilings(result['ceilings'])}",
        "",
        *checks_table(result["checks"]),
        "Ratios: their time over ours, with graphs over ours with graphs; JAX is timed by a clock.",
        "",
        *markdown(header, [line for row in rows for line in _lines(row)]),
        "",
        "## What must be shown",
        "",
        *markdown(("case", "what", "needed", "found", "reached"), _must_show(result["must_show"])),
    ]
    left_out = _left_out([*result["checks"], *rows])
    if left_out:
        lines += ["", "## Not measured", "", *left_out]
    return "\n".join(lines) + "\n"


def _ceilings(ceilings: Mapping[str, Mapping[str, float]]) -> str:
    said = [
        f"{when}: copy {found['copy_bytes_per_s'] / 1e12:.2f} TB/s, bf16 product "
        f"{found['bf16_flops_per_s'] / 1e12:.0f} TFLOP/s"
        for when, found in ceilings.items()
    ]
    return f"Ceilings {'; '.join(said)}."


def _lines(row: Mapping[str, Any]) -> list[list[str]]:
    """A line for each of our artifacts."""
    names = [*row["ours"], *(n for n in row["failed"] if _is_artifact(n))]
    if not names:
        return [[row["case"], NOTHING]]
    return [_line(row, name) for name in names]


def _is_artifact(name: str) -> bool:
    return name.startswith("ours") and not name.endswith("_graph")


def _line(row: Mapping[str, Any], name: str) -> list[str]:
    variant = name.removeprefix("ours").replace("_", ", ")
    title = f"{row['case']}{variant}"
    if name not in row["ours"]:
        return [title, row["failed"][name]]
    found, seconds = row["ours"][name], row["seconds"]
    graph = f"{name}_graph"
    return [
        title,
        f"{seconds[name] * 1e6:.1f}",
        f"{seconds[graph] * 1e6:.1f}" if graph in seconds else NOTHING,
        f"{row['spread'][name]:.1%}",
        *(f"{found['over'][peer]:.2f}x" if peer in found["over"] else NOTHING for peer in PEERS),
        f"{found['share']:.0%}",
        f"{found['error']:.2f}",
    ]


def _must_show(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [
            one["case"],
            one["what"],
            f"{one['sign']} {one['needed']:g}",
            ", ".join(f"{name} {value:.2f}" for name, value in one["found"].items()) or NOTHING,
            one["reached"],
        ]
        for one in found
    ]


def _left_out(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who did not take part and why; each reason once, with its cases."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for who, why in row["failed"].items():
            reasons.setdefault((who, why), []).append(row["case"])
        if "left_out" in row:
            reasons.setdefault(("all", row["left_out"]), []).append(row["case"])
    return [
        f"* {who}: {why} ({len(cases)} cases)"
        if len(cases) > 3
        else f"* {who}: {why} ({', '.join(cases)})"
        for (who, why), cases in reasons.items()
    ]
