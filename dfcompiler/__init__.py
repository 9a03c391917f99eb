"""Ahead-of-time compiler for transformer models."""
