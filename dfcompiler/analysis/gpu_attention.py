"""What the kernel of few queries over a cache serves (`kernels/cuda/attention_step.cuh`)."""

from __future__ import annotations

STEP_WIDTHS = (32, 64, 128)
"""Widths of heads."""
STEP_ROWS = 8
"""Most queries that read one key head: those of a group, for each new token."""
