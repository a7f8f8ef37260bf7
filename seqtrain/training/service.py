"""An aligner service of the run's own, as a source of automata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from seqtrain.aligner import AlignerClient
from seqtrain.errors import AlignerMismatchError, AlignerUnavailableError
from seqtrain.fsa import FsaBatch
from seqtrain.lexicon import AutomatonBuilder, HmmTopology
from sprint_bridge.config import LocalBackendConfig, ServeConfig
from sprint_bridge.process import BridgeProcess

__all__ = ["ServiceSource", "automaton_service"]


class ServiceSource:
    """Automata from a service that this run started as a process of its own.

    Before each batch it is checked that the process is alive. A service that has died is noticed at the next
    step, though the client might still have its answer in memory, and not only when a deadline has passed.
    """

    def __init__(self, bridge: BridgeProcess, client: AlignerClient) -> None:
        self.bridge = bridge
        self.client = client

    def automata(self, tags: Sequence[str]) -> FsaBatch:
        """The automata of some utterances, in order.

        Raises:
            AlignerUnavailableError: the service's process has ended, or doesn't answer.
            AlignerTimeoutError, AlignerItemError, AlignerMismatchError: see `AlignerClient.automata`.
        """
        try:
            self.bridge.check()
            return self.client.automata(tags)
        except AlignerUnavailableError as error:
            raise AlignerUnavailableError(
                f"{error}\nThe checkpoint has what was trained so far: run again with --resume, which starts "
                "the service anew.",
                target=error.target,
            ) from error

    def prefetch(self, batches: Sequence[Sequence[str]]) -> None:
        """Lets the client fetch these batches in the background, in order."""
        self.client.prefetch(batches)


@contextmanager
def automaton_service(
    *,
    lexicon: Path,
    manifest: Path,
    topology: HmmTopology,
    builder: AutomatonBuilder,
    timeout: float,
    prefetch: int,
    log: Path,
) -> Iterator[ServiceSource]:
    """Starts `sprint-bridge serve` with the local backend, and stops it at the end, however that comes.

    Args:
        lexicon, manifest, topology: what the service builds automata from.
        builder: of the same lexicon and topology; its labels must be the service's.
        timeout: seconds for each answer.
        prefetch: batches fetched ahead.
        log: file for what the service says.

    Raises:
        AlignerUnavailableError, AlignerTimeoutError: the service doesn't start.
        AlignerMismatchError: the service has other labels than `builder`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    config = ServeConfig(
        backend=LocalBackendConfig(lexicon=lexicon, transcripts=(manifest,), topology=topology)
    )
    with (
        BridgeProcess(config, log=log) as bridge,
        AlignerClient(bridge.target, timeout=timeout, prefetch_depth=prefetch) as client,
    ):
        served = client.inventory()
        if served.etag != builder.inventory.etag:
            raise AlignerMismatchError(
                f"the service has {len(served)} labels ({' '.join(served.labels[:5])} …), this run expects "
                f"{len(builder.inventory)} ({' '.join(builder.inventory.labels[:5])} …); prepare the corpus "
                "again",
                target=bridge.target,
            )
        yield ServiceSource(bridge, client)
