"""The client of the aligner service."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import torch

from seqtrain.aligner.answers import pad_labels, read_alignments, read_automata
from seqtrain.aligner.cache import AutomatonCache, CacheKey
from seqtrain.aligner.connection import Connection
from seqtrain.aligner.prefetch import Prefetcher
from seqtrain.aligner.server_info import ServerInfo
from seqtrain.aligner.v1 import aligner_pb2, aligner_pb2_grpc
from seqtrain.aligner.v1.health import is_serving
from seqtrain.errors import (
    AlignerError,
    AlignerItemError,
    AlignerMismatchError,
    AlignerTimeoutError,
    ArgumentError,
)
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.lexicon.inventory import LabelInventory

__all__ = ["AlignerClient", "AlignmentBatch", "PartialAutomata"]

T = TypeVar("T")

_MIB = 1 << 20
# Between two looks at whether a service is ready.
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5


@dataclass(frozen=True)
class PartialAutomata:
    """The automata of those segments of a batch that have one.

    `automata` has them in the order of the batch, named by their tags; `kept` are their positions in the
    batch; `errors` says of each other segment why it has none.
    """

    automata: FsaBatch
    kept: tuple[int, ...]
    errors: tuple[AlignerItemError, ...]


@dataclass(frozen=True)
class AlignmentBatch:
    """Alignments of a batch: `labels` (B, T) int64, one a frame, -1 past the end; `lengths` (B,) int64;
    `tags`.
    """

    labels: torch.Tensor
    lengths: torch.Tensor
    tags: tuple[str, ...]


class AlignerClient:
    """Automata and alignments from an aligner service. Safe to share between threads, not with forked
    processes.

    Every call ends within its deadline. A service that isn't reachable is asked again until then, so a
    restart of the service costs a pause and nothing else. The client remembers the configuration (digest) and
    the labels (etag) of the first answer and refuses to go on with others.

    Args:
        target: `unix:/path/of/socket` or `host:port`.
        timeout: seconds for each call, retries included.
        cache_bytes: memory for automata that were fetched before; the least recently used go first. 0: none.
        prefetch_depth: batches that `prefetch` fetches ahead of the one in use.
        max_response_bytes: a larger answer is refused.

    Raises:
        ArgumentError: an argument is out of range. No connection is made yet.
        MissingDependencyError: grpcio or protobuf isn't installed.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout: float = 30.0,
        cache_bytes: int = 256 * _MIB,
        prefetch_depth: int = 4,
        max_response_bytes: int = 512 * _MIB,
    ) -> None:
        scheme, _, rest = target.rpartition(":")
        if not scheme or not rest:
            raise ArgumentError(
                f"target is {target!r}; it must be unix:/path/of/socket or host:port", argument="target"
            )
        for name, value, least in (
            ("timeout", timeout, 1e-3),
            ("cache_bytes", cache_bytes, 0),
            ("prefetch_depth", prefetch_depth, 1),
            ("max_response_bytes", max_response_bytes, 1),
        ):
            if not value >= least:
                raise ArgumentError(f"{name} is {value}; it must be at least {least}", argument=name)
        self._timeout = timeout
        self._connection = Connection(target, max_response_bytes=max_response_bytes)
        self._cache = AutomatonCache(cache_bytes)
        self._prefetcher = Prefetcher(
            lambda names: self._fetch(names, time.monotonic() + timeout),
            depth=prefetch_depth,
            name=f"prefetch of automata from {target}",
        )
        self._lock = threading.Lock()
        self._configuration: tuple[str, str] | None = None
        self._info: ServerInfo | None = None
        self._inventory: LabelInventory | None = None

    @property
    def target(self) -> str:
        """Address of the service."""
        return self._connection.target

    def __enter__(self) -> AlignerClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends prefetching and running calls, and closes the connection. Harmless when repeated."""
        if not self._connection.usable:
            return
        self._prefetcher.close()
        self._connection.close()
        self._prefetcher.join(timeout=self._timeout)

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Waits until the service is up and has loaded what it serves.

        Args:
            timeout: seconds; None: the client's timeout.

        Raises:
            AlignerUnavailableError: it wasn't reachable until the deadline.
            AlignerTimeoutError: it was, but didn't get ready.
        """
        seconds = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        pause = _FIRST_PAUSE
        while True:
            if self._connection.call(
                "health", lambda channel, left: is_serving(channel, timeout=left), deadline=deadline
            ):
                return
            time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
            if deadline - time.monotonic() < _FIRST_PAUSE / 2:
                raise AlignerTimeoutError(
                    f"aligner at {self.target}: still loading after {seconds:.1f} s; wait longer, or see the "
                    "server's log",
                    target=self.target,
                )
            pause = min(2 * pause, _LONGEST_PAUSE)

    def server_info(self) -> ServerInfo:
        """What the server says about itself, asked anew.

        Raises:
            AlignerUnavailableError, AlignerTimeoutError, AlignerMismatchError, AlignerError.
        """
        return self._ask_info(time.monotonic() + self._timeout)

    def inventory(self) -> LabelInventory:
        """The labels in column order; asked once.

        Raises:
            AlignerUnavailableError, AlignerTimeoutError, AlignerMismatchError, AlignerError.
        """
        self._connection.check()
        if self._inventory is None:
            self._inventory = self._ask_inventory(time.monotonic() + self._timeout)
        return self._inventory

    def automata(self, tags: Sequence[str]) -> FsaBatch:
        """The automata of the segments named, in this order, with `tags` set.

        They come from the prefetched batches, from the cache, or from the service.

        Raises:
            AlignerItemError: the service has no automaton for a segment: names it, and the words that its
                lexicon lacks. See `automata_partial` to go on without such segments.
            AlignerUnavailableError, AlignerTimeoutError, AlignerMismatchError, AlignerError.
        """
        partial = self.automata_partial(tags)
        if partial.errors:
            first = partial.errors[0]
            if len(partial.errors) == 1:
                raise first
            others = ", ".join(repr(error.segment) for error in partial.errors[1:4])
            more = ", …" if len(partial.errors) > 4 else ""
            raise AlignerItemError(
                f"{first} (and {len(partial.errors) - 1} more of this batch: {others}{more})",
                segment=first.segment,
                status=first.status,
                words=first.words,
                target=self.target,
            )
        return partial.automata

    def automata_partial(self, tags: Sequence[str]) -> PartialAutomata:
        """As `automata`, but segments without an automaton are left out, and said to be.

        Raises:
            AlignerUnavailableError, AlignerTimeoutError, AlignerMismatchError, AlignerError.
        """
        self._connection.check()
        names = _names(tags)
        deadline = time.monotonic() + self._timeout
        # A prefetch that is under way began earlier than this call, so it ends before this call's deadline.
        fetched = self._prefetcher.take(names)
        return fetched if fetched is not None else self._fetch(names, deadline)

    def prefetch(self, batches: Iterable[Sequence[str]]) -> None:
        """Plans the batches that `automata` will be asked for, in order, and begins to fetch them in the
        background.

        At most `prefetch_depth` batches are kept ahead. A new plan replaces the old one. What goes wrong with
        a batch is raised by the call that asks for it; a batch that isn't in the plan is fetched as if there
        were none.
        """
        self._connection.check()
        self._prefetcher.plan([_names(batch) for batch in batches])

    def alignments(self, tags: Sequence[str]) -> AlignmentBatch:
        """Alignments that the service keeps of the segments named, in this order.

        Raises:
            AlignerItemError: the service has none for a segment.
            AlignerUnavailableError, AlignerTimeoutError, AlignerMismatchError, AlignerError.
        """
        names = _names(tags)
        deadline = time.monotonic() + self._timeout
        labels = []
        for part in self._parts(names, deadline):
            answers = self._ask_alignments(part, deadline)
            for found in read_alignments(answers, part, target=self.target):
                if isinstance(found, AlignerItemError):
                    raise found
                labels.append(found)
        padded, lengths = pad_labels(labels)
        return AlignmentBatch(padded, lengths, names)

    def _fetch(self, names: tuple[str, ...], deadline: float) -> PartialAutomata:
        found: dict[str, Fsa | AlignerItemError] = {}
        if self._configuration is not None:
            digest, etag = self._configuration
            for name in names:
                cached = self._cache.get(CacheKey(etag, digest, name))
                if cached is not None:
                    found[name] = cached
        missing = [name for name in dict.fromkeys(names) if name not in found]
        for part in self._parts(missing, deadline):
            found.update(zip(part, self._ask_automata(part, deadline), strict=True))
        answers = [found[name] for name in names]
        kept = tuple(index for index, answer in enumerate(answers) if isinstance(answer, Fsa))
        return PartialAutomata(
            automata=FsaBatch.from_list(
                [answer for answer in answers if isinstance(answer, Fsa)],
                tags=[names[index] for index in kept],
            ),
            kept=kept,
            errors=tuple(answer for answer in answers if isinstance(answer, AlignerItemError)),
        )

    def _ask_automata(self, names: Sequence[str], deadline: float) -> list[Fsa | AlignerItemError]:
        request = aligner_pb2.GetAutomataRequest(items=[aligner_pb2.ItemKey(segment=name) for name in names])
        answer = self._call("automata", lambda stub, left: stub.GetAutomata(request, timeout=left), deadline)
        self._check_configuration(answer.config_digest, answer.inventory_etag)
        found = list(read_automata(answer, names, target=self.target))
        for name, fsa in zip(names, found, strict=True):
            if isinstance(fsa, Fsa):
                self._cache.put(CacheKey(answer.inventory_etag, answer.config_digest, name), fsa)
        return found

    def _ask_alignments(
        self, names: Sequence[str], deadline: float
    ) -> list[aligner_pb2.GetAlignmentsResponse]:
        request = aligner_pb2.GetAlignmentsRequest(segments=names)
        answers = self._call(
            "alignments", lambda stub, left: list(stub.GetAlignments(request, timeout=left)), deadline
        )
        for answer in answers:
            self._check_configuration(answer.config_digest, answer.inventory_etag)
        return answers

    def _ask_info(self, deadline: float) -> ServerInfo:
        request = aligner_pb2.GetServerInfoRequest()
        message = self._call(
            "server info", lambda stub, left: stub.GetServerInfo(request, timeout=left), deadline
        )
        info = ServerInfo.from_message(message)
        if info.max_batch < 1:
            raise AlignerError(
                f"aligner at {self.target}: takes batches of {info.max_batch}", target=self.target
            )
        self._check_configuration(info.config_digest, info.inventory_etag)
        self._info = info
        return info

    def _ask_inventory(self, deadline: float) -> LabelInventory:
        request = aligner_pb2.GetLabelInventoryRequest()
        messages = self._call(
            "label inventory",
            lambda stub, left: list(stub.GetLabelInventory(request, timeout=left)),
            deadline,
        )
        labels = tuple(label for message in messages for label in message.labels)
        header = messages[0].header if messages else aligner_pb2.LabelInventoryHeader()
        self._check_configuration(header.config_digest, header.inventory_etag)
        try:
            inventory = LabelInventory(
                labels,
                silence=header.silence if header.HasField("silence") else None,
                blank=header.blank if header.HasField("blank") else None,
            )
        except ArgumentError as error:
            raise AlignerError(
                f"aligner at {self.target}: malformed labels: {error}", target=self.target
            ) from error
        if len(labels) != header.num_labels or inventory.etag != header.inventory_etag:
            raise AlignerError(
                f"aligner at {self.target}: the label inventory doesn't fit its own header ({len(labels)} "
                f"labels of {header.num_labels}, etag {inventory.etag[:12]} of {header.inventory_etag[:12]})",
                target=self.target,
            )
        return inventory

    def _parts(self, names: Sequence[str], deadline: float) -> list[Sequence[str]]:
        """The names in pieces that the server takes."""
        if not names:
            self._connection.check()
            return []
        info = self._info if self._info is not None else self._ask_info(deadline)
        return [names[begin : begin + info.max_batch] for begin in range(0, len(names), info.max_batch)]

    def _call(
        self, what: str, attempt: Callable[[aligner_pb2_grpc.AlignerStub, float], T], deadline: float
    ) -> T:
        return self._connection.call(
            what,
            lambda channel, left: attempt(aligner_pb2_grpc.AlignerStub(channel), left),
            deadline=deadline,
        )

    def _check_configuration(self, digest: str, etag: str) -> None:
        with self._lock:
            if self._configuration is None:
                self._configuration = (digest, etag)
            known = self._configuration
        for what, before, now in (("configuration", known[0], digest), ("label inventory", known[1], etag)):
            if before != now:
                raise AlignerMismatchError(
                    f"aligner at {self.target}: the {what} has changed: this run began with "
                    f"{before[:12] or 'none'}, the server now has {now[:12] or 'none'}; start the server as "
                    "it was, or begin a new run",
                    target=self.target,
                )


def _names(tags: Sequence[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise ArgumentError(f"tags must be a sequence of names, not the string {tags!r}", argument="tags")
    names = tuple(tags)
    for name in names:
        if not isinstance(name, str) or not name:
            raise ArgumentError(f"{name!r} isn't the name of a segment", argument="tags")
    return names
