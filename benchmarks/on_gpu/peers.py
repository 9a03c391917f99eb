"""Who takes part in `benchmarks.gpu`: each makes a module ready to be checked and timed.

ONNX Runtime and JAX have not been run here with a GPU: where they fail, their cells say why. ONNX
Runtime gets no attention (its export computes all scores) and no decode (2 GB more to carry).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.on_gpu.cases import WEIGHTS, Case
from benchmarks.on_gpu.timing import Call, Timed, by_clock, by_events, captured


class MissingError(Exception):
    """A contestant that this machine does not have; the message says what is missing."""


@dataclass(frozen=True)
class Work:
    """A case on the device.

    Attributes:
        case: which one.
        folder: where artifacts and ONNX files lie.
        module: with its weights on the device.
        inputs: of a call.
        output: the result of torch.
    """

    case: Case
    folder: Path
    module: nn.Module
    inputs: Mapping[str, Tensor]
    output: Tensor

    def poisoned(self) -> Tensor:
        """Memory for a result; what is not written is not a number."""
        return torch.full_like(self.output, float("nan"))


@dataclass(frozen=True)
class Contestant:
    """A module that is ready to run.

    Attributes:
        result: runs it once and waits.
        timed: seconds of a call.
        with_graph: the same as a CUDA graph; None where there is no such choice.
    """

    result: Callable[[], Tensor]
    timed: Timed
    with_graph: Callable[[], Contestant] | None = None


def opened(path: Path) -> Any:
    """The model of an artifact, on torch's stream.

    Raises:
        MissingError: if it, or its weights, are not there.
    """
    from dfcompiler.runtime import load

    if not path.is_dir():
        raise MissingError(f"there is no {path.name}; 'prepare' makes it")
    if not (path / WEIGHTS).is_file():
        raise MissingError(f"{path.name} has no {WEIGHTS}; 'weights' makes it")
    model: Any = load(path)
    model.use_stream(torch.cuda.current_stream().cuda_stream)
    return model


def ours(name: str, work: Work) -> Contestant:
    """An artifact of the compiler."""
    model = opened(work.folder / work.case.artifacts[name])
    (output,) = model.run(work.inputs)
    target = work.poisoned()

    def call() -> object:
        return model.run(work.inputs, {output: target})

    def result() -> Tensor:
        target.fill_(float("nan"))
        call()
        model.synchronize()
        return target

    def with_graph() -> Contestant:
        model.keep_graphs(True)
        call()  # the second call of equal tensors is captured, the next ones are replays
        call()
        return Contestant(result, by_events(call))

    return Contestant(result, by_events(call), with_graph)


def eager(_: str, work: Work) -> Contestant:
    """Torch as it is."""
    return _of_torch(lambda: work.module(*work.inputs.values()))


def compiled(_: str, work: Work) -> Contestant:
    """``torch.compile`` with max-autotune, for these shapes alone."""
    torch.compiler.reset()  # else a second shape of the same code would be compiled for any shape
    model = torch.compile(work.module, mode="max-autotune-no-cudagraphs", dynamic=False)
    return _of_torch(lambda: model(*work.inputs.values()))


def sdpa(name: str, work: Work) -> Contestant:
    """Torch with one backend of its attention."""
    backend = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}[name]

    def call() -> object:
        with sdpa_kernel(backend):
            return work.module(*work.inputs.values())

    return _of_torch(call)


def _of_torch(call: Call) -> Contestant:
    def result() -> Tensor:
        found = call()
        torch.cuda.synchronize()
        assert isinstance(found, Tensor)
        return found

    def with_graph() -> Contestant:
        kept: dict[str, object] = {}
        replay = captured(lambda: kept.update(output=call()))

        def replayed() -> Tensor:
            found = kept["output"]
            assert isinstance(found, Tensor)
            found.fill_(float("nan"))
            replay()
            torch.cuda.synchronize()
            return found

        return Contestant(replayed, by_events(replay))

    return Contestant(result, by_events(call), with_graph)


def onnx_runtime(_: str, work: Work) -> Contestant:
    """ONNX Runtime on its CUDA provider alone, on torch's stream and memory."""
    path = work.folder / work.case.onnx
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingError("onnxruntime is not installed") from error
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise MissingError("onnxruntime is installed without its CUDA provider")
    if not path.is_file():
        raise MissingError(f"there is no {path.name}; 'prepare' makes it")
    stream = torch.cuda.current_stream().cuda_stream
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    cuda = ("CUDAExecutionProvider", {"user_compute_stream": str(stream)})
    session = ort.InferenceSession(str(path), options, providers=[cuda])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError("onnxruntime could not load the libraries of its CUDA provider")
    target, binding = work.poisoned(), session.io_binding()
    for name, tensor in work.inputs.items():
        binding.bind_input(name, "cuda", 0, *_described(tensor))
    binding.bind_output("output", "cuda", 0, *_described(target))
    run = ort.RunOptions()
    run.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def call() -> object:
        return session.run_with_iobinding(binding, run)

    def result() -> Tensor:
        target.fill_(float("nan"))
        call()
        torch.cuda.synchronize()
        return target

    return Contestant(result, by_events(call))


def _described(tensor: Tensor) -> tuple[int, tuple[int, ...], int]:
    """Element type as ONNX counts them, shape, address."""
    types = {torch.float32: 1, torch.float16: 10, torch.bfloat16: 16}
    return types[tensor.dtype], tuple(tensor.shape), tensor.data_ptr()


def jax_xla(_: str, work: Work) -> Contestant:
    """JAX/XLA with cuDNN's attention; on a stream of its own, so that a clock times it."""
    try:
        import jax

        from benchmarks.on_gpu import jax_modules
    except ImportError as error:
        raise MissingError("jax is not installed") from error
    if jax.default_backend() != "gpu":
        raise MissingError("jax is installed without CUDA")
    torch.cuda.synchronize()
    call, as_tensor = jax_modules.peer(work.module, work.inputs)
    wait = jax.block_until_ready
    return Contestant(lambda: as_tensor(wait(call())), by_clock(call, wait))


PEERS: Mapping[str, Callable[[str, Work], Contestant]] = {
    "eager": eager,
    "compile": compiled,
    "flash": sdpa,
    "cudnn": sdpa,
    "onnxruntime": onnx_runtime,
    "jax": jax_xla,
}
"""How each peer is made ready, in the order of the table's columns."""


def ready(name: str, work: Work) -> Contestant:
    """The contestant of a name.

    Raises:
        MissingError: if this machine does not have it.
    """
    return PEERS[name](name, work) if name in PEERS else ours(name, work)
