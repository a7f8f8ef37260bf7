"""The client of the aligner service."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc
import numpy as np
import torch
from numpy.typing import NDArray

from seqtrain.aligner.answers import (
    AutomataAnswer,
    item_error,
    pad_labels,
    read_alignments,
    read_automata_batch,
)
from seqtrain.aligner.cache import AutomatonCache, CacheKey
from seqtrain.aligner.connection import Connection
from seqtrain.aligner.disk_cache import DiskCache
from seqtrain.aligner.prefetch import Prefetcher
from seqtrain.aligner.scored import LossBatch, ScoredBatch, read_losses
from seqtrain.aligner.server_info import ServerInfo
from seqtrain.aligner.shared_region import SharedRegion
from seqtrain.aligner.stream import AutomataStream
from seqtrain.aligner.targets import split_targets
from seqtrain.aligner.v1 import aligner_pb2, aligner_pb2_grpc
from seqtrain.aligner.v1.credentials import Credentials
from seqtrain.aligner.v1.health import is_serving
from seqtrain.aligner.v1.score_streams import Data, align_call, compute_losses_call
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

_LOG = logging.getLogger("seqtrain")
_MIB = 1 << 20
# Requests of a stream that are under way; a server allows some more.
_STREAM_REQUESTS = 2
_FAILED_ITEMS = ("raise", "impossible")
_OF_THE_ENGINE = ("crashed", "quarantined", "skipped", "infeasible")
_IMPOSSIBLE = Fsa(torch.zeros((0, 3), dtype=torch.int32), num_states=1, final={})
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
        target: `unix:/path/of/socket` or `host:port`; several of them, as a sequence or with commas between, for
            servers that are alike: calls take turns, and go to another where one is unavailable. A name with several
            addresses stands for a server at each.
        timeout: seconds for each call, retries included.
        cache_bytes: memory for automata that were fetched before; the least recently used go first. 0: none.
        cache_folder: keeps automata in files as well, for later runs and other processes; None: in memory alone.
        cache_folder_bytes: of those files.
        prefetch_depth: batches that `prefetch` fetches ahead of the one in use.
        credentials: TLS, the client's certificate, a token.
        failed_items: what `automata` does with a segment over which the engine has crashed, that is in quarantine, or
            that the engine discards: "raise" AlignerItemError, or "impossible": its automaton has no path, so that the
            criterion's `on_infeasible` decides, and names it. Unknown segments and words always raise.
        shared_memory: `error_signals` sends scores through memory that it shares with a service on a unix socket.
        max_response_bytes: a larger answer is refused.

    Raises:
        ArgumentError: an argument is out of range. No connection is made yet.
        MissingDependencyError: grpcio or protobuf isn't installed.
    """

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        timeout: float = 30.0,
        cache_bytes: int = 256 * _MIB,
        cache_folder: str | Path | None = None,
        cache_folder_bytes: int = 4096 * _MIB,
        credentials: Credentials | None = None,
        failed_items: str = "raise",
        shared_memory: bool = False,
        prefetch_depth: int = 4,
        max_response_bytes: int = 512 * _MIB,
    ) -> None:
        targets = split_targets(target)
        for name, value, least in (
            ("timeout", timeout, 1e-3),
            ("cache_bytes", cache_bytes, 0),
            ("cache_folder_bytes", cache_folder_bytes, 1),
            ("prefetch_depth", prefetch_depth, 1),
            ("max_response_bytes", max_response_bytes, 1),
        ):
            if not value >= least:
                raise ArgumentError(f"{name} is {value}; it must be at least {least}", argument=name)
        if failed_items not in _FAILED_ITEMS:
            raise ArgumentError(
                f"failed_items must be 'raise' or 'impossible', got {failed_items!r}", argument="failed_items"
            )
        self._timeout = timeout
        self._failed_items = failed_items
        self._connection = Connection(targets, max_response_bytes=max_response_bytes, credentials=credentials)
        self._stream = AutomataStream()
        self._shared_memory = shared_memory
        self._region: SharedRegion | None = None
        self._region_lock = threading.Lock()
        self._disk = None if cache_folder is None else DiskCache(Path(cache_folder), cache_folder_bytes)
        self._cache = AutomatonCache(cache_bytes)
        self._prefetcher = Prefetcher(
            lambda names: self._fetch(names, time.monotonic() + timeout, ahead=True),
            depth=prefetch_depth,
            threads=min(prefetch_depth, _STREAM_REQUESTS),
            name=f"prefetch of automata from {self._connection.target}",
        )
        self._lock = threading.Lock()
        self._configuration: tuple[str, str] | None = None
        self._configured_by = ""
        self._info: ServerInfo | None = None
        self._inventory: LabelInventory | None = None

    @property
    def target(self) -> str:
        """Address of the service; of several servers, with commas between."""
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
        self._stream.close()
        self._connection.close()
        if self._region is not None:
            self._region.close()
            self._region = None
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
            ready, _ = self._connection.call(
                "health", lambda channel, left: is_serving(channel, timeout=left), deadline=deadline
            )
            if ready:
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
        errors = [error for error in partial.errors if not self._tolerated(error)]
        if errors:
            first = errors[0]
            if len(errors) == 1:
                raise first
            others = ", ".join(repr(error.segment) for error in errors[1:4])
            more = ", …" if len(errors) > 4 else ""
            raise AlignerItemError(
                f"{first} (and {len(errors) - 1} more of this batch: {others}{more})",
                segment=first.segment,
                status=first.status,
                words=first.words,
                target=self.target,
            )
        if not partial.errors:
            return partial.automata
        names = _names(tags)
        graphs = dict(zip(partial.kept, partial.automata, strict=True))
        for error in partial.errors:
            _LOG.warning("%s", error)
        return FsaBatch.from_list([graphs.get(index, _IMPOSSIBLE) for index in range(len(names))], tags=names)

    def _tolerated(self, error: AlignerItemError) -> bool:
        return self._failed_items == "impossible" and error.status in _OF_THE_ENGINE

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
        answers = [
            answer for part in self._parts(names, deadline) for answer in self._ask_alignments(part, deadline)
        ]
        return self._alignment_batch(answers, names)

    def align(self, tags: Sequence[str], scores: torch.Tensor, lengths: torch.Tensor) -> AlignmentBatch:
        """The best path of each segment's automaton through scores of one's own.

        Args:
            tags: B segments.
            scores: (B, T, V) in the columns of `inventory`, natural log, larger is better; sent as float32, or float16
                where they are that.
            lengths: (B,) int frames.

        Raises:
            AlignerItemError: a segment is unknown, or no path of its automaton fits its frames.
            AlignerUnavailableError, AlignerTimeoutError, AlignerMismatchError, AlignerError; ArgumentError and its kin.
        """
        names = _names(tags)
        batch = ScoredBatch(names, scores, lengths, etag=self.inventory().etag)
        answers, server = self._connection.call(
            "forced alignments",
            lambda channel, left: [
                answer.response
                for answer in align_call(channel)(batch.messages(aligner_pb2.AlignRequest), timeout=left)
            ],
            deadline=time.monotonic() + self._timeout,
        )
        self._check_alignments(answers, server)
        return self._alignment_batch(answers, names)

    def error_signals(
        self, tags: Sequence[str], log_posteriors: torch.Tensor, lengths: torch.Tensor
    ) -> LossBatch:
        """Losses and error signals, as `seqtrain.losses.ExternSprintLoss` asks for them.

        Args:
            tags: B segments.
            log_posteriors: (B, T, V) log softmax of the logits; sent as float32, or float16 where they are that.
            lengths: (B,) int frames.

        A segment over which the engine crashed, that it discards, or that no path fits has the loss +inf, a signal of
        zeros and a reason.

        Raises:
            AlignerItemError: a segment is unknown, or the lexicon lacks its words.
            AlignerUnavailableError, AlignerTimeoutError, AlignerMismatchError, AlignerError; ArgumentError and its kin.
        """
        names = _names(tags)
        batch = ScoredBatch(names, log_posteriors, lengths, etag=self.inventory().etag)
        if self._shared_memory and batch.num_bytes and self._offers_shared_memory():
            with self._region_lock:
                return self._losses_by_shared_memory(batch)
        header, losses, data = self._ask_losses(
            batch, lambda: batch.messages(aligner_pb2.ComputeLossesRequest)
        )
        if len(data) != batch.num_bytes:
            raise AlignerError(
                f"aligner at {self.target}: signals of {len(data)} bytes for scores of {batch.num_bytes}",
                target=self.target,
            )
        signals = data.view(batch.dtype).reshape(-1, batch.num_labels)
        return self._loss_batch(batch, header.statuses, losses, signals)

    def _ask_losses(
        self,
        batch: ScoredBatch,
        messages: Callable[[], Iterator[aligner_pb2.ComputeLossesRequest | Data]],
        *,
        region: aligner_pb2.RegisterSharedMemoryRequest | None = None,
    ) -> tuple[aligner_pb2.LossesHeader, NDArray[np.float64], NDArray[np.uint8]]:
        def attempt(channel: grpc.Channel, left: float) -> Any:
            if region is not None:
                # Each time, and of the server that is asked now: one that was restarted knows none, and one that knows
                # it answers at once.
                aligner_pb2_grpc.AlignerStub(channel).RegisterSharedMemory(region, timeout=left)
            answers = compute_losses_call(channel)(messages(), timeout=left)
            return read_losses(answers, batch, target=self.target)

        (header, losses, data), server = self._connection.call(
            "losses", attempt, deadline=time.monotonic() + self._timeout
        )
        self._check_configuration(header.config_digest, header.inventory_etag, server)
        return header, losses, data

    def _offers_shared_memory(self) -> bool:
        info = self._info if self._info is not None else self.server_info()
        # Also of the servers that weren't asked: they are alike, but for the way there.
        return "shared_memory" in info.capabilities and all(
            target.startswith("unix:") for target in self.target.split(",")
        )

    def _losses_by_shared_memory(self, batch: ScoredBatch) -> LossBatch:
        """The lock is held: a region serves one call at a time."""
        size = batch.region_bytes()
        if self._region is None or self._region.size < size:
            if self._region is not None:
                self._region.close()
            self._region = SharedRegion(size)
        region = self._region
        message = aligner_pb2.ComputeLossesRequest(header=batch.put(region))
        request = aligner_pb2.RegisterSharedMemoryRequest(name=region.name, bytes=region.size)

        def messages() -> Iterator[aligner_pb2.ComputeLossesRequest]:
            yield message

        header, losses, _ = self._ask_losses(batch, messages, region=request)
        return self._loss_batch(batch, header.statuses, losses, batch.signals_in(region))

    def _loss_batch(
        self,
        batch: ScoredBatch,
        statuses: Sequence[aligner_pb2.ItemStatus],
        losses: NDArray[np.float64],
        signals: NDArray[Any],
    ) -> LossBatch:
        reasons: list[str | None] = []
        for name, status in zip(batch.names, statuses, strict=True):
            if status.code == aligner_pb2.ITEM_CODE_OK:
                reasons.append(None)
                continue
            error = item_error(status, name, target=self.target)
            if error.status not in _OF_THE_ENGINE:
                raise error
            reasons.append(f"{error.status}: {status.message}")
        return LossBatch(torch.from_numpy(losses.copy()), batch.padded(signals), tuple(reasons))

    def _alignment_batch(
        self, answers: Sequence[aligner_pb2.GetAlignmentsResponse], names: tuple[str, ...]
    ) -> AlignmentBatch:
        labels = []
        for found in read_alignments(answers, names, target=self.target):
            if isinstance(found, AlignerItemError):
                raise found
            labels.append(found)
        padded, lengths = pad_labels(labels)
        return AlignmentBatch(padded, lengths, names)

    def _check_alignments(self, answers: Sequence[aligner_pb2.GetAlignmentsResponse], server: str) -> None:
        for answer in answers:
            self._check_configuration(answer.config_digest, answer.inventory_etag, server)

    def _fetch(self, names: tuple[str, ...], deadline: float, *, ahead: bool = False) -> PartialAutomata:
        found: dict[str, Fsa | AlignerItemError] = {}
        if self._configuration is not None:
            digest, etag = self._configuration
            for name in names:
                cached = self._cached(CacheKey(etag, digest, name))
                if cached is not None:
                    found[name] = cached
        missing = [name for name in dict.fromkeys(names) if name not in found]
        parts = self._parts(missing, deadline)
        if not found and len(parts) == 1 and len(missing) == len(names):
            # The answer is the batch, as it came.
            return _partial(self._ask_automata(names, deadline, ahead=ahead), len(names))
        for part in parts:
            found.update(zip(part, self._ask_automata(part, deadline, ahead=ahead).items(), strict=True))
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

    def _cached(self, key: CacheKey) -> Fsa | None:
        found = self._cache.get(key)
        if found is None and self._disk is not None:
            found = self._disk.get(key)
            if found is not None:
                self._cache.put(key, found)
        return found

    def _ask_automata(self, names: Sequence[str], deadline: float, *, ahead: bool) -> AutomataAnswer:
        request = aligner_pb2.GetAutomataRequest(items=[aligner_pb2.ItemKey(segment=name) for name in names])
        message, server = (
            self._connection.call(
                "automata", lambda channel, left: self._stream.ask(channel, request, left), deadline=deadline
            )
            if ahead
            else self._call("automata", lambda stub, left: stub.GetAutomata(request, timeout=left), deadline)
        )
        self._check_configuration(message.config_digest, message.inventory_etag, server)
        answer = read_automata_batch(message, names, target=server)
        if self._cache.max_bytes or self._disk is not None:
            for name, fsa in zip(names, answer.items(), strict=True):
                if isinstance(fsa, Fsa):
                    key = CacheKey(message.inventory_etag, message.config_digest, name)
                    self._cache.put(key, fsa)
                    if self._disk is not None:
                        self._disk.put(key, fsa)
        return answer

    def _ask_alignments(
        self, names: Sequence[str], deadline: float
    ) -> list[aligner_pb2.GetAlignmentsResponse]:
        request = aligner_pb2.GetAlignmentsRequest(segments=names)
        answers, server = self._call(
            "alignments", lambda stub, left: list(stub.GetAlignments(request, timeout=left)), deadline
        )
        self._check_alignments(answers, server)
        return answers

    def _ask_info(self, deadline: float) -> ServerInfo:
        request = aligner_pb2.GetServerInfoRequest()
        message, server = self._call(
            "server info", lambda stub, left: stub.GetServerInfo(request, timeout=left), deadline
        )
        info = ServerInfo.from_message(message)
        if info.max_batch < 1:
            raise AlignerError(f"aligner at {server}: takes batches of {info.max_batch}", target=server)
        self._check_configuration(info.config_digest, info.inventory_etag, server)
        self._info = info
        return info

    def _ask_inventory(self, deadline: float) -> LabelInventory:
        request = aligner_pb2.GetLabelInventoryRequest()
        messages, server = self._call(
            "label inventory",
            lambda stub, left: list(stub.GetLabelInventory(request, timeout=left)),
            deadline,
        )
        labels = tuple(label for message in messages for label in message.labels)
        header = messages[0].header if messages else aligner_pb2.LabelInventoryHeader()
        self._check_configuration(header.config_digest, header.inventory_etag, server)
        try:
            inventory = LabelInventory(
                labels,
                silence=header.silence if header.HasField("silence") else None,
                blank=header.blank if header.HasField("blank") else None,
            )
        except ArgumentError as error:
            raise AlignerError(f"aligner at {server}: malformed labels: {error}", target=server) from error
        if len(labels) != header.num_labels or inventory.etag != header.inventory_etag:
            raise AlignerError(
                f"aligner at {server}: the label inventory doesn't fit its own header ({len(labels)} "
                f"labels of {header.num_labels}, etag {inventory.etag[:12]} of {header.inventory_etag[:12]})",
                target=server,
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
    ) -> tuple[T, str]:
        return self._connection.call(
            what,
            lambda channel, left: attempt(aligner_pb2_grpc.AlignerStub(channel), left),
            deadline=deadline,
        )

    def _check_configuration(self, digest: str, etag: str, server: str) -> None:
        with self._lock:
            if self._configuration is None:
                self._configuration = (digest, etag)
                self._configured_by = server
            known = self._configuration
            first = self._configured_by
        for what, before, now in (("configuration", known[0], digest), ("label inventory", known[1], etag)):
            if before == now:
                continue
            shown = before[:12] or "none", now[:12] or "none"
            raise AlignerMismatchError(
                f"aligner at {server}: the {what} has changed: this run began with {shown[0]}, the server now has "
                f"{shown[1]}; start the server as it was, or begin a new run"
                if server == first
                else f"aligners at {first} and {server} aren't alike: the {what} of the first is {shown[0]}, that of "
                f"the other {shown[1]}; start both with one configuration",
                target=server,
            )


def _partial(answer: AutomataAnswer, count: int) -> PartialAutomata:
    return PartialAutomata(
        automata=answer.batch,
        kept=tuple(index for index in range(count) if index not in answer.errors),
        errors=tuple(answer.errors.values()),
    )


def _names(tags: Sequence[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise ArgumentError(f"tags must be a sequence of names, not the string {tags!r}", argument="tags")
    names = tuple(tags)
    for name in names:
        if not isinstance(name, str) or not name:
            raise ArgumentError(f"{name!r} isn't the name of a segment", argument="tags")
    return names
