"""What a compilation did, as data: rows of passes, kernels, reasons."""

SCHEMA_VERSION = 1
"""The version of ``report.json`` that is written and read."""
