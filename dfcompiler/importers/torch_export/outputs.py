"""Names for the outputs of an exported program."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch.utils import _pytree as pytree

from dfcompiler.errors import UnsupportedError


def output_names(exported: Any) -> list[str]:
    """A name for each leaf of the module's result.

    Fields and keys give their names; the elements of a plain tuple are ``output``, ``output_1``, …
    """
    spec = exported.call_spec.out_spec
    leaves = [object() for _ in range(spec.num_leaves)]
    paths = [
        path for path, _ in pytree.tree_flatten_with_path(pytree.tree_unflatten(leaves, spec))[0]
    ]
    return [_path_name(path) for path in paths]


def _path_name(path: Iterable[Any]) -> str:
    parts = [_key_name(key) for key in path]
    if not parts or parts[0].isdigit():
        number = parts[0] if parts else "0"
        parts = ["output", *([number] if number != "0" else []), *parts[1:]]
    return re.sub(r"\W", "_", "_".join(parts))


def _key_name(key: Any) -> str:
    for field in ("key", "name", "idx"):
        if hasattr(key, field):
            return str(getattr(key, field))
    raise UnsupportedError(f"the module's result has a part without a name: {key}")
