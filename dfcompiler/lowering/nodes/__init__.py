"""DaCe library nodes for contractions: each has a `native` expansion, most a `pure` one too."""

from dfcompiler.lowering.nodes.attention import Attention
from dfcompiler.lowering.nodes.attention_bf16 import AttentionBf16
from dfcompiler.lowering.nodes.matmul import MatMul
from dfcompiler.lowering.nodes.matmul_bf16 import MatMulBf16

__all__ = ["Attention", "AttentionBf16", "MatMul", "MatMulBf16"]
