"""Which headers of DaCe's runtime a generated program needs: most need none."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import dace

from dfcompiler.errors import InternalError

RUNTIME = Path(dace.__file__).parent / "runtime" / "include"
"""Where DaCe keeps the headers."""

_ALL = "<dace/dace.h>"
_TYPES = "<dace/types.h>"
_OURS = '"program.h"'
_PROVIDED = frozenset(("int_floor", "int_ceil", "Min", "Max"))
_KEYWORDS = frozenset(("float", "double", "defined", "operator"))

_SCOPED = re.compile(r"\bdace::(\w+)|\b_*DACE_(?!EXPORTED\b)(\w+)")
_TYPE_NAMES = frozenset(("float16", "bfloat16"))
_DEVICE = '"cuda/device_program.h"'
_DEVICE_TYPES = '"cuda/device_types.h"'
_DEVICE_NAMES = frozenset(
    ("cuda", "GPU_CHECK", "KERNEL_LAUNCH_CHECK", "KERNEL_REQUEST_DYNAMIC_SHARED_MEMORY")
)
_DEVICE_SPECIFIERS = frozenset(("DFI", "HFI", "HDFI"))
_DEVICE_TYPE_NAMES = frozenset(("float16", "half", "bfloat16"))
_CALL = re.compile(r"(?<![\w.:>])([A-Za-z]\w*)\(")
_DECLARED = re.compile(r"\bDACE_(?:HD|H)FI\b[^;{}()]*?\b([A-Za-z]\w*)\s*\(")


def runtime_headers(code: str) -> tuple[str, ...]:
    """The headers that `code` needs, as they are included.

    Nearly every program rounds quotients of sizes and no more, for which a header of ours will do.
    """
    scoped = {name for names in _SCOPED.findall(code) for name in names if name}
    calls = _declared() - _PROVIDED
    if not scoped <= _TYPE_NAMES or not calls.isdisjoint(_CALL.findall(code)):
        return (_ALL,)
    return (_TYPES, _OURS) if scoped else (_OURS,)


def device_headers(code: str) -> tuple[str, ...]:
    """The headers that code for a GPU needs, as they are included; all of them are ours.

    Raises:
        InternalError: if the code uses what only DaCe's headers have.
    """
    scoped = {name for names in _SCOPED.findall(code) for name in names if name}
    types = scoped & _DEVICE_TYPE_NAMES
    unknown = scoped - types - _DEVICE_NAMES - _DEVICE_SPECIFIERS
    if unknown:
        raise InternalError(
            f"the code for the GPU uses {', '.join(sorted(unknown))} of DaCe's headers; "
            f"expected what {_DEVICE} has"
        )
    return (_DEVICE, _DEVICE_TYPES) if types else (_DEVICE,)


@cache
def _declared() -> frozenset[str]:
    """The functions that DaCe's headers declare outside of any scope, or inside."""
    texts = (path.read_text(encoding="utf-8") for path in (RUNTIME / "dace").glob("*.h"))
    return frozenset(name for text in texts for name in _DECLARED.findall(text)) - _KEYWORDS
