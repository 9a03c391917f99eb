"""Lowering for GPUs: maps become kernels, contractions become launches of our own."""
