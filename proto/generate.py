"""Generate the Python code of the protocol into the package.

Run it from a throwaway environment with the pinned generator (see requirements.txt beside this file):

    python3.11 -m venv .venv-proto
    .venv-proto/bin/pip install -r proto/requirements.txt
    .venv-proto/bin/python proto/generate.py
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = "seqtrain/aligner/v1/aligner.proto"
GENERATOR = "1.62.3"


def main() -> int:
    if version("grpcio-tools") != GENERATOR:
        print(
            f"generate.py: needs grpcio-tools {GENERATOR}, found {version('grpcio-tools')}; "
            "install proto/requirements.txt into an environment of its own",
            file=sys.stderr,
        )
        return 2
    from grpc_tools import protoc

    return int(
        protoc.main(
            [
                "protoc",
                f"--proto_path={ROOT / 'proto'}",
                f"--python_out={ROOT}",
                f"--pyi_out={ROOT}",
                f"--grpc_python_out={ROOT}",
                f"--plugin=protoc-gen-mypy_grpc={Path(sys.executable).parent / 'protoc-gen-mypy_grpc'}",
                f"--mypy_grpc_out={ROOT}",
                PROTO,
            ]
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
