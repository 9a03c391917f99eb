"""Stamps on a GPU: events on the stream, read when the call is done (`kernels/cuda/profile.h`).

The program writes no times itself; what makes the call (`device_cuda.h`) reads the events when the
stream is done and fills the last output. Such a call is not captured as a graph.
"""

from __future__ import annotations

from dfcompiler.lowering.cuda.cpp import SPACE, checked
from dfcompiler.lowering.profile import Stamps

_PROFILE = f"{SPACE}current_profile()->"


class EventStamps(Stamps):
    """Puts an event behind the launches of each operator."""

    header = "cuda/profile.h"

    def started(self) -> str:
        """C++ that records the first event."""
        self.context.include("cuda/check.h")
        return checked(f"{_PROFILE}begin({self.count}, __dace_current_stream)")

    def booked(self) -> str:
        """C++ that records the event of the next operator."""
        return checked(f"{_PROFILE}end({self.next}, __dace_current_stream)")
