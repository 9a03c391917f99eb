"""One base error: what was found, what was expected, where, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class DfcError(Exception):
    """A failure that is shown to a user as one sentence, never as a traceback.

    Attributes:
        message: what was found and what was expected, one sentence, no trailing period.
        where: lines that locate it (model node, IR excerpt, file), outermost first.
        hint: what to do next, one sentence.
    """

    message: str
    where: tuple[str, ...] = ()
    hint: str = ""

    kind = "internal"
    exit_code = 1

    def __str__(self) -> str:
        lines = [f"error[{self.kind}]: {self.message}"]
        lines += [f"  {line}" for line in self.where]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


class InternalError(DfcError):
    """A bug of the compiler itself; the command line leaves a reproducer."""


class VerifyError(InternalError):
    """A program breaks a rule of the IR."""

    kind = "verify"


class ClaimError(InternalError):
    """A pass did not keep what it claims."""

    kind = "claim"


class UsageError(DfcError):
    """An option, a path or an argument is wrong."""

    kind = "usage"
    exit_code = 2


class InputError(UsageError):
    """A tensor given at run time has the wrong name, dtype, rank or size."""

    kind = "input"


class ModelError(DfcError):
    """A model or an artifact is broken, contradictory or not to be trusted."""

    kind = "model"
    exit_code = 3


class UnsupportedError(DfcError):
    """Operators, dtypes or features of the model that cannot be compiled; lists all of them."""

    kind = "unsupported"
    exit_code = 4


class ToolchainError(DfcError):
    """A compiler or library that is needed is missing or failed."""

    kind = "toolchain"
    exit_code = 5


class ToleranceError(DfcError):
    """Outputs differ from the reference by more than the tolerance."""

    kind = "tolerance"
    exit_code = 6


class SlowerError(DfcError):
    """A measured time is above the baseline it was asked to beat."""

    kind = "slower"
    exit_code = 7


class DeviceError(DfcError):
    """The GPU or the driver that an artifact needs is missing, is another one, or failed."""

    kind = "device"
    exit_code = 8
