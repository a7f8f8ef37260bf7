"""The process of one stage: `python -m seqtrain.training.worker`, a job on stdin, messages on stdout.

Started by `seqtrain.training.side_by_side`, not by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from seqtrain.errors import SeqtrainError
from seqtrain.training.config import RecipeConfig
from seqtrain.training.messages import RelayConsole, describe_error, send
from seqtrain.training.run import RecipeRun
from seqtrain.training.settings import from_mapping

__all__ = ["main"]


def main() -> int:
    """Trains the stage that the job names; returns the exit status."""
    job = json.load(sys.stdin)
    # Whatever else prints must not come between the messages.
    messages, sys.stdout = sys.stdout, sys.stderr
    try:
        config = from_mapping(RecipeConfig, job["config"])
        torch.set_num_threads(config.threads)
        run = RecipeRun(config, Path(job["workdir"]), console=RelayConsole(messages), resume=job["resume"])
        result = run.train(job["stage"])
    except SeqtrainError as error:
        send(messages, describe_error(error))
        return 2
    except (KeyboardInterrupt, BrokenPipeError):
        # The run that started this one has been stopped, or is gone.
        return 130
    send(messages, {"result": result})
    return 0


if __name__ == "__main__":
    sys.exit(main())
