"""How long RETURNN's own client waits for batches of automata; runs in RETURNN's environment, by returnn_pipe.

python returnn_ask.py QUESTION.json ANSWER.json
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from returnn.sprint.error_signals import SprintInstancePool  # type: ignore[import-not-found]


def main() -> None:
    question = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    pool = SprintInstancePool(sprint_opts=question["sprint_opts"])
    first, *batches = question["batches"]
    pool.get_automata_for_batch(first)  # starts the executables
    seconds, arcs = [], 0
    for batch in batches:
        began = time.monotonic()
        edges, _, _ = pool.get_automata_for_batch(batch)
        seconds.append(time.monotonic() - began)
        arcs += edges.shape[1]
    Path(sys.argv[2]).write_text(json.dumps({"seconds": seconds, "arcs": arcs}), encoding="utf-8")


if __name__ == "__main__":
    main()
