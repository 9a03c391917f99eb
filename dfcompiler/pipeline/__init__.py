"""Passes, and the pipeline that runs, verifies, measures and records them.

What a pass is and promises is in `contract`, how passes run in `runner`, at which sizes they are
measured in `probes`, and how the names of installed passes become a pipeline in `assembly`.
"""

from dfcompiler.pipeline.assembly import Step, assemble, discover, extended, read_steps
from dfcompiler.pipeline.contract import Chosen, Claim, Decline, Declined, Pass
from dfcompiler.pipeline.probes import Bindings, default_probes
from dfcompiler.pipeline.runner import PassRecord, Pipeline, PipelineResult, Rewritten, Snapshot

__all__ = [
    "Bindings",
    "Chosen",
    "Claim",
    "Decline",
    "Declined",
    "Pass",
    "PassRecord",
    "Pipeline",
    "PipelineResult",
    "Rewritten",
    "Snapshot",
    "Step",
    "assemble",
    "default_probes",
    "discover",
    "extended",
    "read_steps",
]
