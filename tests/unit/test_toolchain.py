"""Finding the compiler, running it, and keeping its results."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dfcompiler.codegen import store, toolchain
from dfcompiler.codegen.cutlass import Cutlass, find_cutlass
from dfcompiler.codegen.process import Background, Backgrounds, fewer_collections, run_all
from dfcompiler.codegen.toolchain import (
    Compiler,
    compile_flags,
    find_compiler,
    find_nvcc,
    find_toolchain,
)
from dfcompiler.errors import ToolchainError
from dfcompiler.target import parse_cpu, parse_target


def script(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_missing_compiler_says_how_to_install_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolchainError, match=r"g\+\+ is not on the PATH") as caught:
        find_compiler()
    for word in ("apt-get install", "dnf install", "brew install"):
        assert word in caught.value.hint
    assert caught.value.exit_code == 5


def test_cxx_is_respected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ToolchainError, match="CXX=no-such-compiler is not on the PATH"):
        find_compiler()
    monkeypatch.setenv("CXX", f"{script(tmp_path, 'mycxx', 'exec g++ $@')} -m64")
    found = find_compiler()
    assert found.command == (str(tmp_path / "mycxx"), "-m64")
    assert found.family == "gcc"


def test_old_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(script(tmp_path, "old-g++", "echo 9.4.0")))
    with pytest.raises(ToolchainError, match=r"is version 9\.4\.0; expected 11 or newer"):
        find_compiler()


def test_something_that_is_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(script(tmp_path, "broken", "exit 3")))
    with pytest.raises(ToolchainError, match=r"does not work as a C\+\+ compiler"):
        find_compiler()


def test_flags_keep_infinities_and_follow_the_target() -> None:
    flags = compile_flags(parse_target("cpu:x86-64-v3"))
    assert "-march=x86-64-v3" in flags
    assert not {"-ffast-math", "-ffinite-math-only", "-march=native", "-g"} & set(flags)


NVCC = "echo 'Cuda compilation tools, release 12.4, V12.4.131'"


@pytest.fixture
def no_nvcc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A machine that has a C++ compiler and nothing of CUDA."""
    for variable in ("NVCC", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(toolchain, "_TOOLKIT", tmp_path / "no-toolkit")
    monkeypatch.setattr(sys, "path", [])
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin", "g++", f'exec {shutil.which("g++")} "$@"')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return monkeypatch


def test_missing_nvcc_says_how_to_install_it(no_nvcc: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolchainError, match="no CUDA compiler") as caught:
        find_toolchain(parse_target("cuda:sm_90"))
    for word in ("pip install nvidia-cuda-nvcc", "CUDA toolkit", "NVCC="):
        assert word in caught.value.hint
    find_toolchain(parse_target("cpu"))


VERSION_H = "#define CUTLASS_MAJOR {}\n#define CUTLASS_MINOR {}\n#define CUTLASS_PATCH {}\n"


def cutlass_in(home: Path, *version: int) -> Path:
    """A folder that looks like CUTLASS."""
    header = home / "include" / "cutlass" / "version.h"
    header.parent.mkdir(parents=True)
    header.write_text(VERSION_H.format(*version))
    return home


def test_the_license_of_cutlass_is_the_comment_above_its_headers(tmp_path: Path) -> None:
    home = cutlass_in(tmp_path, 4, 2, 0)
    header = home / "include" / "cutlass" / "version.h"
    notice = f"/{'*' * 40}\n * Copyright (c) its makers\n *\n * 1. Keep this.\n *\n {'*' * 40}/\n"
    header.write_text(notice + header.read_text())
    terms = Cutlass(home, "4.2.0").license
    assert terms == "Copyright (c) its makers\n\n1. Keep this.\n"


def test_missing_cutlass_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUTLASS_HOME", raising=False)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ToolchainError, match="nvidia-cutlass is not installed") as caught:
        find_cutlass()
    for word in ("pip install --no-deps nvidia-cutlass==4.2.0.0", "CUTLASS_HOME"):
        assert word in caught.value.hint


def test_cutlass_is_a_package_or_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packages = tmp_path / "site-packages"
    package = cutlass_in(packages / "cutlass_library" / "source", 4, 2, 0)
    monkeypatch.delenv("CUTLASS_HOME", raising=False)
    monkeypatch.setattr(sys, "path", ["", str(packages)])
    assert (find_cutlass().home, str(find_cutlass())) == (package, "CUTLASS 4.2.0")
    monkeypatch.setenv("CUTLASS_HOME", str(cutlass_in(tmp_path / "own", 4, 2, 0)))
    assert find_cutlass().home == tmp_path / "own"
    monkeypatch.setenv("CUTLASS_HOME", str(cutlass_in(tmp_path / "old", 3, 9, 2)))
    with pytest.raises(ToolchainError, match=r"is CUTLASS 3\.9\.2; expected 4\.2\.0"):
        find_cutlass()
    monkeypatch.setenv("CUTLASS_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(ToolchainError, match="nowhere has no include/cutlass"):
        find_cutlass()


def test_nvcc_is_found_where_it_may_be(no_nvcc: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In turn: the toolkit, a Python package, the PATH, CUDA_HOME, NVCC."""
    packages = tmp_path / "lib" / "site-packages"
    places = [
        tmp_path / "no-toolkit" / "bin",
        packages / "nvidia" / "cu13" / "bin",
        tmp_path / "bin",
        tmp_path / "home" / "bin",
        tmp_path / "own",
    ]
    settings = [
        lambda: None,
        lambda: no_nvcc.setattr(sys, "path", ["", str(packages)]),
        lambda: None,
        lambda: no_nvcc.setenv("CUDA_HOME", str(tmp_path / "home")),
        lambda: no_nvcc.setenv("NVCC", f"{tmp_path / 'own' / 'nvcc'} --quiet"),
    ]
    for place, setting in zip(places, settings, strict=True):
        place.mkdir(parents=True, exist_ok=True)
        path = script(place, "nvcc", NVCC)
        setting()
        found = find_nvcc()
        assert found.command[0] == str(path)
        assert str(found) == "nvcc 12.4.131"
    assert found.command[1:] == ("--quiet",)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("echo V11.8.89", r"is version 11\.8\.89; expected 12 or newer"),
        ("echo hello", "is no CUDA compiler"),
        ("exit 3", "does not work as a CUDA compiler"),
    ],
)
def test_an_nvcc_that_is_none(
    no_nvcc: pytest.MonkeyPatch, tmp_path: Path, body: str, sentence: str
) -> None:
    no_nvcc.setenv("NVCC", str(script(tmp_path, f"nvcc-{len(body)}", body)))
    with pytest.raises(ToolchainError, match=sentence):
        find_nvcc()


def test_an_nvcc_that_is_not_there(no_nvcc: pytest.MonkeyPatch) -> None:
    no_nvcc.setenv("NVCC", "/no/such/nvcc")
    with pytest.raises(ToolchainError, match="NVCC=/no/such/nvcc is not there"):
        find_nvcc()


@pytest.mark.parametrize(("target", "arch"), [("cuda:sm_80", "80"), ("cuda:sm_90", "90a")])
def test_flags_of_a_gpu(
    no_nvcc: pytest.MonkeyPatch, tmp_path: Path, target: str, arch: str
) -> None:
    script(tmp_path / "bin", "nvcc", NVCC)
    no_nvcc.setenv("CXX", "g++ -m64")
    tools = find_toolchain(parse_target(target))
    assert f"-gencode=arch=compute_{arch},code=sm_{arch}" in tools.compile_flags
    assert not {"--use_fast_math", "-use_fast_math", "-lineinfo", "-g"} & set(tools.compile_flags)
    assert "--ftz=false" in tools.numeric_flags
    assert str(tools).startswith("nvcc 12.4.131 and g++ ")
    bins = tmp_path / "bin"
    assert tools.command == (str(bins / "nvcc"), f"-ccbin={bins / 'g++'}", "-Xcompiler=-m64")
    assert tools.host("-frandom-seed=x") == "-Xcompiler=-frandom-seed=x"


def test_the_flags_of_a_cpu_are_its_own() -> None:
    target = parse_target("cpu:x86-64-v3")
    tools = find_toolchain(target)
    assert tools.compile_flags == compile_flags(parse_cpu("cpu:x86-64-v3"))
    assert tools.host("-w") == "-w"
    assert isinstance(tools.compilers[0], Compiler)


def test_failing_command_shows_its_errors(tmp_path: Path) -> None:
    bad = tmp_path / "bad.cpp"
    bad.write_text("int f() { return nothing; }\n")
    with pytest.raises(ToolchainError, match="failed with status 1") as caught:
        run_all([["g++", "-c", str(bad), "-o", str(tmp_path / "bad.o")]], tmp_path)
    assert "nothing" in caught.value.where[0]


def test_a_failure_ends_the_other_commands(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ToolchainError):
        run_all([["sh", "-c", "exit 1"], ["sleep", "60"]], tmp_path)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupt_while_a_thread_starts_leaves_no_process(
    begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come before the thread has begun the work, and after."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        while begun and not any(file.stat().st_size for file in tmp_path.iterdir()):
            time.sleep(0.01)
        raise KeyboardInterrupt

    def work() -> None:
        run_all([["sh", "-c", "echo $$ > pid; sleep 60"]], tmp_path)

    before = time.monotonic()
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), Backgrounds() as aside:
        aside.start(work)
    assert time.monotonic() - before < 30
    for file in tmp_path.iterdir():
        if pid := file.read_text():
            with pytest.raises(ProcessLookupError):
                os.kill(int(pid), 0)


def test_work_that_was_stopped_does_not_begin() -> None:
    done: list[int] = []
    one = Background(lambda: done.append(1))
    one.stop()
    one.start()
    one._thread.join()
    assert done == []


def test_an_interrupt_leaves_no_process(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from dfcompiler.codegen.process import run_all\n"
        "run_all([['sh', '-c', 'echo $$ > pid; sleep 60']], pathlib.Path(sys.argv[1]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE)
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text().strip()):
        time.sleep(0.02)
    process.send_signal(2)
    assert b"KeyboardInterrupt" in process.communicate(timeout=30)[1]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DFC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_cache_named_relative_to_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFC_CACHE_DIR", "cache")  # g++ runs elsewhere
    assert store.cache_folder() == Path.cwd() / "cache"


def test_store_makes_once(cache: Path) -> None:
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "result").write_text("done")

    for _ in range(2):
        assert (store.stored("key", make) / "result").read_text() == "done"
    assert len(calls) == 1
    assert [p.name for p in cache.iterdir()] == ["key"]


def test_store_keeps_nothing_of_a_failure(cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.stored("key", fail)
    assert list(cache.iterdir()) == []


def test_store_notices_damage(cache: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "result").write_text("whole")

    (store.stored("key", make) / "result").write_text("who")
    assert (store.stored("key", make) / "result").read_text() == "whole"


def test_store_with_many_writers(cache: Path) -> None:
    barrier = threading.Barrier(4)
    found: list[str] = []

    def make(folder: Path) -> None:
        (folder / "result").write_text("same")
        barrier.wait(timeout=10)

    def use() -> None:
        found.append((store.stored("key", make) / "result").read_text())

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["same"] * 4
    assert [p.name for p in cache.iterdir()] == ["key"]


def test_store_drops_what_was_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LARGEST_BYTES", 2000)

    def make(folder: Path) -> None:
        (folder / "result").write_bytes(bytes(900))

    for number, name in enumerate(["old", "older", "new"]):
        place = store.stored(name, make)
        os.utime(place, (0, 10 - number if name != "new" else 20))
    store.stored("newest", make)
    assert {p.name for p in cache.iterdir()} == {"new", "newest"}


def test_unwritable_cache_is_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DFC_CACHE_DIR", str(tmp_path / "file" / "cache"))
    place = store.stored("key", lambda folder: (folder / "result").write_text("done") and None)
    assert (place / "result").read_text() == "done"


@pytest.mark.parametrize("own", [(700, 10, 10), (200_000, 5, 5), (0, 10, 10)])
def test_the_callers_garbage_collection_comes_back(own: tuple[int, int, int]) -> None:
    before = gc.get_threshold()
    gc.set_threshold(*own)
    try:
        with fewer_collections():
            assert gc.get_threshold()[0] == (max(own[0], 50_000) if own[0] else 0)
        assert gc.get_threshold() == own
    finally:
        gc.set_threshold(*before)
