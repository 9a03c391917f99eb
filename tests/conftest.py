"""Fixtures that several test files share, and a compile cache of the tests' own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("DFC_CACHE_DIR", str(Path(__file__).parent.parent / "build" / "test-cache"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell; tests interrupt processes, which inherit this.
    signal.signal(signal.SIGINT, signal.default_int_handler)

SMALL_PROGRAM = """program small(batch, length <= 64) {
  input @x: f32[batch, length]
  input @ids: i64[batch, length]
  input @attention_mask: i64[batch, length]
  output @sum: f32[batch, length]
  output @shifted: i64[batch, length]
  state main {
    %0: f32[batch, length] = cast @attention_mask {to = f32}
    %1: f32[batch, length] = mul @x, %0
    @sum: f32[batch, length] = gelu %1
    @shifted: i64[batch, length] = add @ids, @attention_mask
  }
}
"""


@pytest.fixture(scope="session")
def small_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program without weights, as a file."""
    path = tmp_path_factory.mktemp("program") / "small.ir"
    path.write_text(SMALL_PROGRAM)
    return path


@pytest.fixture(scope="session")
def small_artifact(small_program: Path) -> Path:
    """The small program, compiled."""
    from dfcompiler.api import compile_artifact

    return compile_artifact(small_program, small_program.parent / "small.dfc").path
