"""The options of a compilation: whether they fit together, and what a digest sees of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfcompiler.api.machines import machine_of
from dfcompiler.api.paths import existing
from dfcompiler.codegen.store import sha256_of
from dfcompiler.errors import UnsupportedError, UsageError
from dfcompiler.target import CpuTarget, Target

if TYPE_CHECKING:
    from dfcompiler.api.optimizing import PipelineLike
    from dfcompiler.api.specializing import Sizes


@dataclass(frozen=True)
class Options:
    """The options of `compile`, under the same names."""

    target: str | Target = "cpu"
    shapes: Sizes | None = None
    pipeline: PipelineLike = None
    precision: str = "f32"
    force: bool = False
    limits: Mapping[str, int] | None = None
    example_inputs: Mapping[str, Any] | Sequence[Any] | None = None
    dynamic_shapes: Any = None
    tokenizer: str | PathLike[str] | None = None
    profile: bool = False
    tune: bool = False
    expansions: Mapping[str, str] | None = None
    end_tokens: Sequence[int] = ()

    def machine(self) -> Target:
        """The target that the compilation is for.

        Raises:
            UsageError: if there is no such target.
        """
        return machine_of(self.target)

    def check(self) -> None:
        """Refuses options that no model could be compiled with.

        Raises:
            UnsupportedError: if there is no such precision.
            UsageError: if the precision does not go with the pipeline, what is to be measured not
                with the target, an expansion is not the target's, end tokens not with the
                pipeline, or the tokenizer is none.
            DeviceError: if kernels are to be measured on a GPU that is not there.
        """
        self._check_precision()
        self._check_measuring()
        self._check_end_tokens()
        if self.expansions:
            from dfcompiler.lowering.backends import check_expansions

            check_expansions(self.expansions, self.machine())
        if self.tokenizer is not None:
            _check_tokenizer(existing(self.tokenizer))

    def plain(self) -> dict[str, Any] | None:
        """The options as data that a digest can be made of; None if there is more to them.

        Live objects have no digest, and what tuning gives depends on what it measures.
        """
        pipeline = self.pipeline or "default"
        if self.tune or not isinstance(pipeline, str | Path):
            return None
        if str(pipeline).endswith(".toml"):
            path = existing(pipeline)
            pipeline = path.read_text(encoding="utf-8", errors="replace")
        return {
            "shapes": {
                k: v if isinstance(v, int) else list(v) for k, v in (self.shapes or {}).items()
            },
            "pipeline": str(pipeline),
            "precision": self.precision,
            "limits": dict(self.limits or {}),
            "tokenizer": sha256_of(Path(self.tokenizer)) if self.tokenizer else "",
            "profile": self.profile,
            "expansions": dict(self.expansions or {}),
            "force": self.force,
            "end_tokens": list(self.end_tokens),
        }

    def _check_measuring(self) -> None:
        target = self.machine()
        if isinstance(target, CpuTarget):
            return
        if self.tune:
            from dfcompiler.codegen.gpu_tuning import device_of

            if self.expansions and "matmul" in self.expansions:
                raise UsageError(
                    "tune chooses among the expansions of products, and one is asked for",
                    hint="leave out --tune, or --expansion matmul=…",
                )
            device_of(target)

    def _check_end_tokens(self) -> None:
        if self.end_tokens and self.pipeline != "generation":
            raise UsageError(
                f"end tokens are for the pipeline generation; this one is "
                f"{self.pipeline or 'default'}",
                hint="give --pipeline generation, or the option end_tokens of make-generation-loop",
            )
        if any(number < 0 for number in self.end_tokens):
            raise UsageError(f"found the end tokens {list(self.end_tokens)}; expected ids from 0")

    def _check_precision(self) -> None:
        from passes.pipelines import PRECISIONS

        if self.precision not in PRECISIONS:
            raise UnsupportedError(
                f"precision {self.precision} is not supported; expected one of "
                f"{', '.join(PRECISIONS)}"
            )
        pipeline = self.pipeline or "default"
        if self.precision != "f32" and (
            not isinstance(pipeline, str) or pipeline.endswith(".toml")
        ):
            raise UsageError(
                f"precision {self.precision} is for the pipelines that have a name; this one "
                "lists its passes itself",
                hint="put lower-precision among them, or narrow-values for a GPU",
            )


def _check_tokenizer(path: Path) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"{path} is no tokenizer; expected a tokenizer.json")
