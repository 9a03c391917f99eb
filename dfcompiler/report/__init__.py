"""What a compilation did, as data: rows of passes, kernels, reasons."""
