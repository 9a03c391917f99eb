"""A decoder that generates in `benchmarks.gpu`: its loop, its end, its cache, its graphs.

Tokens must be those that torch chooses in float32 on the CPU. Where the two greatest logits are
closest, they are further apart than float32 rounds (a test asserts it).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.on_gpu.cases import Case
from benchmarks.on_gpu.checks import PREFIX
from benchmarks.on_gpu.modules import rotary_tables, rotated
from benchmarks.on_gpu.peers import opened

if TYPE_CHECKING:
    from dfcompiler.ir import Program

WORDS, WIDTH, HEADS, KV_HEADS, LAYERS, CONTEXT = 211, 128, 4, 2, 2, 96
PROMPT, COUNT = (3, 141, 59, 26, 5), 48
END = 158
"""The token that ends a text: one that comes late in this one."""


class Step(nn.Module):
    """Appends tokens to the cache and predicts the next one."""

    cos: Tensor
    sin: Tensor
    keys: Tensor
    values: Tensor
    position: Tensor

    def __init__(self) -> None:
        super().__init__()
        depth = WIDTH // HEADS
        tables = [rotary_tables(position, depth) for position in range(CONTEXT)]
        self.register_buffer("cos", torch.stack([cos for cos, _ in tables]))
        self.register_buffer("sin", torch.stack([sin for _, sin in tables]))
        self.register_buffer("position", torch.zeros(1, dtype=torch.int64))
        for i in range(LAYERS):
            for name in ("keys", "values"):
                self.register_buffer(f"{name}_{i}", torch.zeros(1, KV_HEADS, CONTEXT, depth))
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.RMSNorm(WIDTH, eps=1e-5),
                    "q": nn.Linear(WIDTH, WIDTH, bias=False),
                    "k": nn.Linear(WIDTH, KV_HEADS * depth, bias=False),
                    "v": nn.Linear(WIDTH, KV_HEADS * depth, bias=False),
                    "out": nn.Linear(WIDTH, WIDTH, bias=False),
                    "up": nn.Linear(WIDTH, 3 * WIDTH),
                    "down": nn.Linear(3 * WIDTH, WIDTH),
                }
            )
            for _ in range(LAYERS)
        )
        self.norm, self.head = nn.RMSNorm(WIDTH, eps=1e-5), nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        length = ids.shape[1]
        positions = self.position + torch.arange(length)
        visible = torch.arange(CONTEXT) <= positions[:, None]
        cos, sin = self.cos[positions], self.sin[positions]
        x = self.embedding(ids)
        for i, layer in enumerate(self.layers):
            n = layer["norm"](x)
            q, k, v = (layer[f](n).unflatten(-1, (-1, cos.shape[1])).transpose(1, 2) for f in "qkv")
            keys, values = self.get_buffer(f"keys_{i}"), self.get_buffer(f"values_{i}")
            keys.index_copy_(2, positions, rotated(k, cos, sin))
            values.index_copy_(2, positions, v)
            mixed = functional.scaled_dot_product_attention(
                rotated(q, cos, sin), keys, values, attn_mask=visible, enable_gqa=True
            )
            x = x + layer["out"](mixed.transpose(1, 2).flatten(2))
            x = x + layer["down"](functional.gelu(layer["up"](x)))
        self.position.add_(length)
        return {"logits": self.head(self.norm(x[:, -1]))}


@dataclass(frozen=True)
class Generation(Case):
    """A case whose results are tokens."""

    def program(self) -> Program:
        """The step, for prompts of any length."""
        from dfcompiler.api import import_model

        lengths = {"ids": {1: torch.export.Dim("S", max=CONTEXT)}}
        return import_model(self.module(), example_inputs=self.example(0), dynamic_shapes=lengths)

    def example(self, seed: int, device: str = "cpu") -> dict[str, Tensor]:
        """The prompt, whatever the seed."""
        return {"ids": torch.tensor([PROMPT], device=device)}


GENERATION = Generation(
    f"{PREFIX}generation_float32",
    torch.float32,
    Step,
    {"ids": (1, len(PROMPT))},
    peers=(),
    passes={"pipeline": "generation", "end_tokens": (END,)},
)


def greedy(step: nn.Module, count: int) -> tuple[list[int], float]:
    """Tokens one after the other, and the least distance of the two greatest logits on the way."""
    ids, tokens, gaps = torch.tensor([PROMPT]), list[int](), list[float]()
    with torch.no_grad():
        for _ in range(count):
            best = step(ids)["logits"][0].topk(2)
            tokens.append(int(best.indices[0]))
            gaps.append(float(best.values[0] - best.values[1]))
            ids = torch.tensor([tokens[-1:]])
    return tokens, min(gaps)


def expected_tokens(step: nn.Module) -> list[int]:
    """What a call gives: greedy tokens, and the end token from the first one on."""
    tokens, _ = greedy(step, COUNT)
    length = tokens.index(END)
    return tokens[:length] + [END] * (COUNT - length)


@dataclass(frozen=True)
class Made:
    """What a call gave, and how long each token of it took."""

    tokens: list[int]
    length: int
    seconds_a_token: float

    def differing(self, expected: list[int]) -> int:
        """Tokens that are not as expected; one more if the length is not."""
        pairs = zip(self.tokens, expected, strict=True)
        return sum(a != b for a, b in pairs) + (self.length != expected.index(END))


class Tokens:
    """An artifact that generates; every call starts with an empty cache."""

    def __init__(self, path: Path) -> None:
        self._model = opened(path)

    def plain(self) -> dict[str, Made]:
        """The first call captures its loop, the second one replays it."""
        return {"first call": self._made(), "second call": self._made()}

    def graph(self) -> dict[str, Made]:
        """The whole call is captured, then replayed."""
        self._model.keep_graphs(True)
        return {name: self._made() for name in ("first call", "captured call", "replayed call")}

    def _made(self) -> Made:
        self._model.reset()
        begin = time.perf_counter()
        found = self._model.run({"ids": np.array([PROMPT])}, N=COUNT)
        seconds, length = time.perf_counter() - begin, int(found["lengths"][0])
        return Made(found["tokens"][0].tolist(), length, seconds / (length + 1))
