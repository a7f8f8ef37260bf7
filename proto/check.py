"""Check the protocol: lint, what each rpc says about its status codes, and that nothing breaks what is in use.

    python proto/check.py            everything must hold, and the baseline be up to date
    python proto/check.py --accept   takes additions into the baseline; still refuses what breaks clients

Lint and the check for breaking changes are buf's (buf.yaml), which comes as a Python package and needs no network. The
baseline, proto/baseline.json, holds descriptors of what is in use. A change that has to break it gets a new package
(seqtrain.aligner.v2).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
BASELINE = "baseline.json"
REQUIRED = ("OK", "UNAVAILABLE", "DEADLINE_EXCEEDED")
# https://grpc.io/docs/guides/status-codes/
CODES = {
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}  # fmt: skip


def buf(folder: Path, *arguments: str) -> list[str]:
    """What buf finds in a folder, one line each."""
    # Beside the interpreter, where pip puts it.
    program = Path(sys.executable).with_name("buf")
    done = subprocess.run([str(program), *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return []
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines or [f"buf {arguments[0]} ended with status {done.returncode}"]


def descriptors(folder: Path, name: str) -> Any:
    """The descriptors of a folder's protocol, or of its baseline, as JSON."""
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "descriptors.json"
        problems = buf(folder, "build", name, "--exclude-source-info", "--output", str(out))
        if problems:
            raise SystemExit("\n".join(problems))
        return json.loads(out.read_text(encoding="utf-8"))


def check_status_codes(path: Path) -> list[str]:
    """What an rpc's comment lacks: each lists the status codes that it may end with, one a line, and those alone."""
    lines = path.read_text(encoding="utf-8").splitlines()
    problems = []
    for number, line in enumerate(lines, start=1):
        found = re.match(r"\s*rpc (\w+)\(", line)
        if found is None:
            continue
        listed: list[str] = []
        for comment in reversed(lines[: number - 1]):
            if not comment.strip().startswith("//"):
                break
            entry = re.match(r"\s*//   ([A-Z_]+(?:, [A-Z_]+)*)(?:\s|$)", comment)
            listed += entry[1].split(", ") if entry is not None else []
        where = f"{path}:{number}: rpc {found[1]}"
        problems += [
            f"{where} doesn't say when it ends with {code}" for code in REQUIRED if code not in listed
        ]
        problems += [f"{where} lists {code}, which is no status code" for code in listed if code not in CODES]
    return problems


def check(folder: Path, *, accept: bool = False) -> list[str]:
    """What is wrong with the protocol in a folder.

    Args:
        folder: has buf.yaml, the baseline, and the .proto files.
        accept: writes the baseline anew where nothing else is wrong.
    """
    problems = buf(folder, "lint")
    for path in sorted(folder.rglob("*.proto")):
        problems += check_status_codes(path)
    baseline = folder / BASELINE
    if baseline.exists():
        problems += buf(folder, "breaking", "--against", BASELINE)
    if problems:
        return problems
    now = descriptors(folder, ".")
    if accept:
        baseline.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    elif not baseline.exists():
        return [f"there is no {BASELINE}; run proto/check.py --accept"]
    elif json.loads(baseline.read_text(encoding="utf-8")) != now:
        return [f"{BASELINE} lacks additions; run proto/check.py --accept"]
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--accept", action="store_true", help="take additions into the baseline")
    problems = check(FOLDER, accept=parser.parse_args().accept)
    for problem in problems:
        print(problem)
    if not problems:
        print("the protocol is well formed, and breaks nothing")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
