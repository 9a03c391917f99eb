"""DaCe library nodes for contractions, each with a `pure` and a `native` expansion."""

from dfcompiler.lowering.nodes.attention import Attention
from dfcompiler.lowering.nodes.matmul import MatMul

__all__ = ["Attention", "MatMul"]
