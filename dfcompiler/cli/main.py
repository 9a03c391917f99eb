"""The entry point: commands are found here, failures become exit codes here."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Annotated

import typer

import dfcompiler
from dfcompiler.cli import failure
from dfcompiler.cli.bench import bench_command
from dfcompiler.cli.compile import compile_command
from dfcompiler.cli.doctor import doctor_command
from dfcompiler.cli.explain import explain_command
from dfcompiler.cli.generate import generate_command
from dfcompiler.cli.inspect import inspect_command
from dfcompiler.cli.passes import passes_command
from dfcompiler.cli.report import report_command
from dfcompiler.cli.run import run_command
from dfcompiler.cli.session import Session
from dfcompiler.cli.verify import verify_command

app = typer.Typer(
    name="dfc",
    help="Compiles transformer models ahead of time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "compile": compile_command,
    "run": run_command,
    "generate": generate_command,
    "inspect": inspect_command,
    "report": report_command,
    "passes": passes_command,
    "explain": explain_command,
    "verify": verify_command,
    "bench": bench_command,
    "doctor": doctor_command,
}
for name, command in _COMMANDS.items():
    app.command(name)(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dfcompiler {dfcompiler.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show Python tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Compiles transformer models ahead of time."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; ``--debug`` may stand anywhere."""
    given = tuple(sys.argv[1:] if arguments is None else arguments)
    session = Session(given, debug="--debug" in given)
    rest = [argument for argument in given if argument != "--debug"]
    previous = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, _terminated)
    except ValueError:
        previous = None  # not in the main thread
    try:
        found = app(rest, obj=session, standalone_mode=False, prog_name="dfc")
        if found == failure.INTERRUPTED:  # typer turns Ctrl-C into this result
            raise KeyboardInterrupt
        return found if isinstance(found, int) else 0
    except BaseException as error:
        return _exit_code(error, session)
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _exit_code(error: BaseException, session: Session) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, typer.Abort):
        error = KeyboardInterrupt()
    usage = getattr(error, "format_message", None)  # typer's own complaints about the command line
    if usage is not None:
        if usage():  # without any argument the help was printed instead
            sys.stderr.write(f"error[usage]: {usage()}\n  hint: dfc --help lists the commands\n")
        return 2
    return failure.report(error, session)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
