"""Lower bounds on the bytes that any schedule of a computation moves.

A bound belongs to the computation and the size of the fast memory, and holds for schedules that do
not look at the values of masks and conditions to skip work.
"""

from dfcompiler.analysis.io_bound.demand import program_bound
from dfcompiler.analysis.io_bound.dependence import needed_elements
from dfcompiler.analysis.io_bound.gemm import gemm_bound
from dfcompiler.analysis.io_bound.operator import op_bound
from dfcompiler.analysis.io_bound.words import elements_of

__all__ = ["elements_of", "gemm_bound", "needed_elements", "op_bound", "program_bound"]
