"""Generated kernels that begin while the one before them still runs (`kernels/cuda/predecessor.h`).

    __global__ void add_7(const float* __restrict__ in_x, …) {      … add_7(const float *in_x, …) {
                                                              ─▶       follow_predecessor();
    cudaLaunchKernel((void*)add_7, …)                               launch_following(add_7, …)

Every kernel waits in its first line, so none can forget to. All parameters but weights lose their
``__restrict__``: it promises the compiler that nothing writes there while the kernel is resident,
and loads could move in front of the wait.
"""

from __future__ import annotations

import re

from dfcompiler.errors import InternalError

HEADER = '"cuda/launch.h"'
"""What the code needs."""

_KERNEL = re.compile(
    r"^(?P<head>__global__ void\s+(?:__launch_bounds__\(\d+\) )?\w+\()(?P<params>[^{]*)\) \{\n",
    re.MULTILINE,
)
_WRITTEN = re.compile(r"\* __restrict__ (?!w_)")
_LAUNCH = re.compile(r"\bcudaLaunchKernel\(\(void\*\)(?=\w+,)")


def early_kernels(code: str) -> str:
    """The CUDA code that DaCe made, with kernels that wait, and launches that count on it.

    Raises:
        InternalError: if a kernel or a launch is not written as it used to be.
    """
    code, waiting = _KERNEL.subn(_waiting, code)
    code = _LAUNCH.sub("dfc::cuda::launch_following(", code)
    kernels = code.count("__global__")
    if waiting != kernels or "cudaLaunchKernel" in code:
        raise InternalError(
            f"{kernels - waiting} of {kernels} kernels that DaCe generated, or a launch of one, "
            "cannot be read; expected '__global__ void name(…) {' and "
            "'cudaLaunchKernel((void*)name, …)'"
        )
    return code


def _waiting(found: re.Match[str]) -> str:
    params = _WRITTEN.sub("*", found["params"])
    return f"{found['head']}{params}) {{\n    dfc::cuda::follow_predecessor();\n"
