"""A case of `benchmarks.gpu` that compiles at once, for processes that share nothing else."""

from __future__ import annotations

import torch

from benchmarks.on_gpu.cases import Case

TINY = Case(
    "tiny",
    torch.bfloat16,
    lambda: torch.nn.Linear(64, 48),
    {"input": (64, 64)},
    flops=1.0,
    expansions=(("matmul", "wgmma"),),
    peers=("eager", "onnxruntime"),
)
