"""A process for `benchmarks.on_gpu.supervise`, in a file that loads at once."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection


def rehearsal(
    sender: Connection, names: Sequence[str], failed: Mapping[str, Mapping[str, str]]
) -> None:
    """A stand-in for `measure_cases`: contestants that crash, hang, or lose the device."""
    for case in names:
        sender.send(("begin", case, "start"))
        out = dict(failed.get(case, {}))
        for who in ("ours", "ours_wgmma", "eager"):
            if who in out:
                continue
            sender.send(("begin", case, who))
            match case, who:
                case ("crash", "ours"):
                    os.abort()
                case ("hang", "ours_wgmma"):
                    time.sleep(60)
                case ("lost", "ours"):
                    sender.send(("fail", case, who, "DeviceError: illegal address"))
                    os._exit(1)
        if case == "no reference":
            sender.send(("begin", case, "reference"))
            os._exit(3)
        sender.send(("row", case, {"case": case, "failed": out}))
