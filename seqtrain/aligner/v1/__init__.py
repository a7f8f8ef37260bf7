"""The wire format of the aligner service: generated messages and stubs, and how arrays are packed into them.

Client and server both import grpc through this module, so that what must be set before grpc is loaded is set.
"""

from __future__ import annotations

import importlib
import os

from seqtrain.errors import MissingDependencyError

# grpc's core prints connection trouble on the process's stderr, which is the trainer's screen. The errors
# that this package raises say all of it. The core reads these variables once, when it is loaded: a user's own
# choice is left.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

for _module, _package in (
    ("grpc", "grpcio"),
    ("google.protobuf", "protobuf"),
    ("grpc_health", "grpcio-health-checking"),
):
    try:
        importlib.import_module(_module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(_package, extra="bridge") from error

__all__: list[str] = []
