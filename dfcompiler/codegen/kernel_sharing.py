"""One kernel for all layers: generated kernels that differ by the names of their parameters only.

    __global__ void add_7(float* v3, float* v4) { … }         __global__ void add_7(…) { … }
    __global__ void add_19(float* v11, float* v12) { … }  ─▶
    … launch_following(add_19, …, add_19_args …)              … launch_following(add_7, …)

DaCe generates a kernel for every map. A model repeats its layers, and nvcc takes a second for each
kernel.
"""

from __future__ import annotations

import re

_KERNEL = re.compile(
    r"^(?P<head>__global__ void\s+(?:__launch_bounds__\(\d+\) )?)(?P<name>\w+)"
    r"\((?P<params>[^{]*)\) (?P<body>\{.*?^\})\n",
    re.MULTILINE | re.DOTALL,
)
_WORD = re.compile(r"\b[A-Za-z_]\w*\b")


def shared_kernels(code: str) -> str:
    """The CUDA code with each kernel once, and its launches in the order of its parameters."""
    first: dict[tuple[str, ...], tuple[str, str]] = {}
    renamed: dict[str, tuple[str, list[str]]] = {}

    def kept(found: re.Match[str]) -> str:
        params = [param.strip() for param in found["params"].split(",") if param.strip()]
        names = [_WORD.findall(param)[-1] for param in params]
        order = _by_first_use(names, found["body"])
        numbers = {names[i]: f"_p{n}" for n, i in enumerate(order)}
        body = _WORD.sub(lambda word: numbers.get(word[0], word[0]), found["body"])
        signature = [_renamed(params[i], names[i], numbers[names[i]]) for i in order]
        key = (found["head"], *signature, body)
        is_new = key not in first
        name, text = first.setdefault(
            key, (found["name"], f"{found['head']}{found['name']}({', '.join(signature)}) {body}\n")
        )
        renamed[found["name"]] = (name, [names[i] for i in order])
        return text if is_new else ""

    code = _KERNEL.sub(kept, code)
    for own, (name, arguments) in renamed.items():
        listed = ", ".join(f"(void *)&{argument}" for argument in arguments)
        given = f"{own}_args[] = {{ {listed} }}"
        code = re.sub(rf"\b{own}_args\[\] = \{{[^}}]*\}}", given, code)
        code = code.replace(f"launch_following({own},", f"launch_following({name},")
    return code


def _by_first_use(names: list[str], body: str) -> list[int]:
    """Positions of parameters in the order in which the body mentions them; unused ones last."""
    used: dict[str, int] = {}
    for word in _WORD.finditer(body):
        used.setdefault(word[0], word.start())
    return sorted(range(len(names)), key=lambda i: used.get(names[i], len(body)))


def _renamed(param: str, old: str, new: str) -> str:
    return f"{param[: param.rindex(old)]}{new}"
