"""What ``make run`` shows: MiniLM from its trained weights to sentence embeddings."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from dfcompiler.cli import main as dfc
from models import minilm

SENTENCES = (
    "A man is eating food.",
    "Somebody is having a meal.",
    "The new movie is awesome.",
    "I really enjoyed that film.",
    "A cheetah is chasing its prey across a field.",
    "A fast cat is running behind an antelope.",
    "The bank raised its interest rates again.",
    "Borrowing money has become more expensive.",
    "It is raining heavily in the mountains.",
    "A storm brought a lot of water to the hills.",
    "She plays the violin in an orchestra.",
    "The compiler fused the bias into the matrix product.",
)


def closest(embeddings: np.ndarray, count: int = 6) -> list[tuple[float, int, int]]:
    """The pairs of sentences with the largest cosine similarity."""
    similarity = embeddings @ embeddings.T
    pairs = ((float(similarity[i, j]), i, j) for i in range(len(embeddings)) for j in range(i))
    return sorted(pairs, reverse=True)[:count]


def main() -> int:
    """Exports, compiles, runs and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=Path("build"), help="folder for the outputs")
    build: Path = parser.parse_args().build
    model, artifact = build / "minilm.onnx", build / "minilm.dfc"
    if not model.is_file():
        print(f"exporting all-MiniLM-L6-v2 from its trained weights to {model}", file=sys.stderr)
        minilm.export_onnx(model)
    tokenizer = str(minilm.tokenizer_path())
    code = dfc(["compile", str(model), "-o", str(artifact), "--force", "--tokenizer", tokenizer])
    if code:
        return code
    _embed(artifact)
    print(f"\nartifact: {artifact} (C header {artifact / 'model.h'}, IR {artifact / 'ir'})")
    return 0


def _embed(artifact: Path) -> None:
    """From here on only the runtime is used: numpy, the library and the weights."""
    from dfcompiler import load

    started = time.perf_counter()
    model = load(artifact)
    loaded = time.perf_counter()
    batch = minilm.encode(list(SENTENCES))
    encoded = time.perf_counter()
    hidden = model.run(batch)["last_hidden_state"]
    first = time.perf_counter()
    model.run(batch)
    second = time.perf_counter()
    rows, width = batch["input_ids"].shape
    print(
        f"\n{rows} sentences of up to {width} tokens; load {1e3 * (loaded - started):.1f} ms, "
        f"first run {1e3 * (first - encoded):.1f} ms, then {1e3 * (second - first):.1f} ms. "
        "The closest ones:"
    )
    for similarity, i, j in closest(minilm.embed(hidden, batch["attention_mask"])):
        print(f"  {similarity:.3f}  {SENTENCES[j]}  |  {SENTENCES[i]}")


if __name__ == "__main__":
    sys.exit(main())
