"""RETURNN's own client asks an executable; runs in RETURNN's environment.

python ask_returnn.py QUESTION.json ANSWER.npz
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from returnn.sprint.error_signals import SprintInstancePool  # type: ignore[import-not-found]


def main() -> None:
    question = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    segments = question["segments"]
    pool = SprintInstancePool(sprint_opts=question["automata"])
    edges, weights, start_end = pool.get_automata_for_batch(segments)
    answer = {"edges": edges, "weights": weights, "start_end": start_end}
    if "losses" in question:
        scores = np.load(question["scores"])
        losses, signals = SprintInstancePool(sprint_opts=question["losses"]).get_batch_loss_and_error_signal(
            log_posteriors=scores,
            seq_lengths=np.full(len(segments), len(scores), dtype=np.int32),
            tags=segments,
        )
        answer |= {"losses": losses, "signals": signals}
    np.savez(sys.argv[2], **answer)


if __name__ == "__main__":
    main()
