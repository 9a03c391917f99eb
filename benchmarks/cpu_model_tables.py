"""The tables of `benchmarks.cpu_models`, and what they are to show."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import geometric_mean
from typing import Any

from benchmarks import record

TITLES = {
    "fp32": "fp32 encoders",
    "decoder": "fp32 causal decoder, prefill: 30 layers, 576 wide, 9 heads, 3 KV heads",
    "avx2": "Compiled for AVX2, shares of the AVX2 ceiling",
    "bf16": "bf16 encoders",
}
MODELS = {"bert_base": "BERT-base", "minilm": "MiniLM", "decoder": "decoder"}


def tables(data: dict[str, Any]) -> str:
    """All sections that have results."""
    parts = [
        "# Models on the CPU\n\n"
        f"{data['threads']} threads; medians over interleaved rounds; each engine in a process of "
        "its own, prepared for exactly the shape; ours is one artifact for all shapes, timed as "
        "`Model.run`. In brackets the engine's time over ours (median of the rounds' ratios). "
        f"{record.machine_line(data['machine'])}"
    ]
    for section, title in TITLES.items():
        cases = [case for case in data["cases"].values() if case["section"] == section]
        if cases:
            parts.append(f"\n## {title}\n\n{_times(cases)}\n{_summary(cases)}\n{_errors(cases)}")
    return "".join(parts)


def _times(cases: list[dict[str, Any]]) -> str:
    peers = list(cases[0]["engines"])[1:]
    lowered = cases[0]["precision"] == "bf16"
    header = ("model", "batch × sequence", "ours ms", "spread", *(f"{name} ms" for name in peers))
    shares = ("of bf16 ceiling",) if lowered else ("of FMA ceiling", "of L1-fed tile")
    rows = []
    for case in cases:
        ours = case["engines"]["dfcompiler"]
        ceilings = ("bf16_gflops",) if lowered else ("fma_gflops", "tile_gflops")
        rows.append(
            (
                *_label(case),
                f"{ours['median_ms']:.2f}",
                f"{ours['spread']:.0%}",
                *(_against(case["engines"][name]) for name in peers),
                *(f"{ours['gflops'] / case[key]:.0%} of {case[key]:.0f}" for key in ceilings),
            )
        )
    return record.markdown_table((*header, *shares), rows)


def _against(engine: dict[str, Any]) -> str:
    low, middle, high = engine["times_ours"]
    return f"{engine['median_ms']:.2f} ({middle:.2f}; {low:.2f}–{high:.2f})"


def _summary(cases: list[dict[str, Any]]) -> str:
    """The geometric mean over the best peer of each shape, and over each peer."""
    peers = list(cases[0]["engines"])[1:]
    if not peers:
        return ""
    best = [min(_ratios(case)) for case in cases]
    each = ", ".join(
        f"{name} {geometric_mean(_ratio(case, name) for case in cases):.2f}" for name in peers
    )
    return (
        f"\nBest peer's time over ours: geometric mean {geometric_mean(best):.2f}, "
        f"least {min(best):.2f}. Geometric means over each: {each}.\n"
    )


def _errors(cases: list[dict[str, Any]]) -> str:
    engines = list(cases[0]["engines"])
    rows = [
        (
            *_label(case),
            *(f"{case['engines'][name]['max_abs_from_float64']:.2e}" for name in engines),
        )
        for case in cases
    ]
    header = ("model", "batch × sequence", *engines)
    return "\nLargest absolute difference from torch in float64:\n\n" + record.markdown_table(
        header, rows
    )


def _label(case: dict[str, Any]) -> tuple[str, str]:
    return MODELS[case["model"]], " × ".join(map(str, case["shape"]))


def _ratio(case: dict[str, Any], peer: str) -> float:
    return float(case["engines"][peer]["times_ours"][1])


def _ratios(case: dict[str, Any]) -> Iterable[float]:
    return (_ratio(case, name) for name in case["engines"] if name != "dfcompiler")
