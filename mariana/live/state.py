"""One open index: what it holds now, writing to it, noticing what others write, compacting it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mariana._binding.trie import TAGS_MAX, Reader
from mariana.errors import FileFormatError, InvalidInputError, MarianaError, NotFoundError, StoreError
from mariana.live import folder, learning
from mariana.live.holding import Holding, identity
from mariana.live.journal import JOURNAL_FILE, Head, Item, Journal
from mariana.store import fsync_directory, locked, make_folder, store_errors, write_whole

COMPACT_LEAST = 10_000
COMPACT_SHARE = 32
"""An index is compacted when it has COMPACT_LEAST changes, and one for each COMPACT_SHARE entries of its segment."""

HALF_LIFE = 30.0
"""Of what is learnt, days, unless told otherwise."""

_TRIES = 16
_log = logging.getLogger("mariana")


@dataclass(frozen=True, slots=True)
class Receipt:
    """A change that is on the disk, and visible in this process.

    Attributes:
        sequence: its number; the changes to an index are numbered in the order in which they happened.
        count: entries that were inserted or replaced, that were there to delete, or selections that counted.
    """

    sequence: int
    count: int


class Explained(NamedTuple):
    """Where the score of an entry comes from: ``base + learned``.

    Attributes:
        base: the score it was given.
        learned: what selections added.
        selections: how many these are by now, faded.
        live: whether the entry was changed since the segment was built.
    """

    base: float
    learned: float
    selections: float
    live: bool


Work = Callable[[Journal, Holding, int, float], int]
"""Writes one request: the journal in a transaction, what is held, the sequence number, the time; returns its count."""


class _Closed(Exception):  # noqa: N818 - nothing is wrong
    """Ends a renewal."""


@dataclass(slots=True)
class _Request:
    work: Work
    receipt: Receipt | None = None
    error: BaseException | None = None


class LiveIndex:
    """The index of one folder. Threads may share it; a child of ``fork`` has to open it anew.

    Args:
        path: the folder.
        half_life: of what is learnt from now on, days; None keeps the one that the index has.

    Attributes:
        path: the folder.
        reader: searches all entries; replaced, and never changed, when they change.

    Raises:
        NotFoundError: there is no index.
        FileFormatError: a file is damaged or newer than this version.
        StoreError: it cannot be read.
    """

    reader: Reader

    def __init__(self, path: Path, half_life: float | None = None) -> None:
        self.path = path
        self._half_life = half_life
        self._pid = os.getpid()
        self._lock = threading.RLock()  # of the journal and of what is held
        self._queue: list[_Request] = []
        self._queue_lock = threading.Lock()
        self._compaction: subprocess.Popen[bytes] | None = None
        self._renewal: threading.Thread | None = None
        self._closed = threading.Event()
        self._seen = -1  # the journal's version when it was read
        self._clock: learning.Clock | None = None
        self._journal: Journal | None = None
        self._hold(self._open())

    # ---- reading -----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of entries."""
        return self.reader.entries

    def _hold(self, held: Holding) -> None:
        self._now = held
        self.reader = held.layers.reader

    @property
    def segment(self) -> Path:
        """The file that the changes lie on."""
        return self._now.segment

    @property
    def sequence(self) -> int:
        """The number of the last change that is visible here; 0 when there never was one."""
        return self._now.sequence

    @property
    def live(self) -> bool:
        """Whether the index was ever changed since it was made."""
        return self._now.head is not None

    def explain(self, text: bytes) -> Explained | None:
        """Return where an entry's score comes from; None when there is no such entry."""
        with self._lock:
            now = self._now
            item = now.given(text)
            if item is None:
                return None
            count, part = now.learnt(text, item.score)
            return Explained(item.score, part, count, text in now.items)

    def _open(self, known: Holding | None = None) -> Holding:
        """Open what is there, in place of what was open."""
        with store_errors(f"read the index {self.path}"):
            for _ in range(_TRIES):  # a publisher may remove the segment between the journal and the opening
                journal = Journal.open(self.path)
                try:
                    if journal is None:
                        held = Holding(self.path, None, None, known)
                    else:
                        self._seen = journal.version()
                        with journal.reading() as head:
                            held = Holding(self.path, journal, head, known)
                except BaseException as error:
                    if journal is not None:
                        journal.close()
                    if not isinstance(error, FileNotFoundError):
                        raise
                    missing = error.filename
                    continue
                previous, self._journal = self._journal, journal
                if previous is not None:
                    previous.close()
                return held
        raise FileFormatError(f"{missing}: is not there, but counts; restore the index from a copy")

    def refresh(self, *, wait: bool = True) -> bool:
        """Take what others have written since; costs microseconds when nobody has.

        Args:
            wait: for a thread that is writing; else nothing is taken then, as a write does it too.

        Returns:
            Whether anything was new.

        Raises:
            FileFormatError, StoreError: it cannot be read; what was read before stays.
        """
        if not self._lock.acquire(blocking=wait):
            return False
        try:
            return not self._closed.is_set() and self._refresh()
        finally:
            self._lock.release()

    def _refresh(self) -> bool:
        self._check_usable()
        if self._journal is None or not self._journal.in_place():
            if self._journal is None and not self._was_published():
                return False
            self._hold(self._open(self._now))
            return True
        return self._journal.version() != self._seen and self._read(self._journal)

    def _check_usable(self) -> None:
        if self._closed.is_set():
            raise InvalidInputError("the index is closed")
        if self._pid != os.getpid():
            raise InvalidInputError("the index was opened before a fork: open it in this process")

    def _read(self, journal: Journal) -> bool:
        """Hold what the journal holds; says whether that was new."""
        for _ in range(_TRIES):
            version, self._seen = journal.version(), -1  # until it is held: what fails is tried again
            try:
                with journal.reading() as head:
                    new = self._catch_up(journal, head)
            except FileNotFoundError as error:  # published once more
                missing = error.filename
                continue
            self._seen = version
            return new
        raise FileFormatError(f"{missing}: is not there, but counts; restore the index from a copy")

    def _was_published(self) -> bool:
        """Whether a segment or a journal has come since; for an index without journal."""
        try:
            numbers = folder.segment_numbers(self.path)
            return bool(numbers) and (
                (self.path / JOURNAL_FILE).exists()
                or identity(folder.segment_path(self.path, numbers[-1])) != self._now.file
            )
        except FileNotFoundError:
            return False  # the next look will tell

    def _catch_up(self, journal: Journal, head: Head) -> bool:
        """Hold what the journal (in a transaction) holds; says whether that was new."""
        now, known = self._now, self._now.head
        if head == known:
            return False
        if known is not None and now.goes_on(head):
            now.take(journal, head, after=known.sequence)
        else:
            now = Holding(self.path, journal, head, now)
        self._hold(now)
        if now.behind and self._renewal is None:
            self._renewal = threading.Thread(target=self._renew, name="renewal")
            self._renewal.start()
        return True

    def _renew(self) -> None:
        """Let a holding on top of the segment that counts take the place of one that is behind.

        It is made beside it: after a compaction, that takes as long as there are many changes, and nobody shall wait.
        """
        try:
            for _ in range(_TRIES):
                try:
                    if self._renewed():
                        return
                except FileNotFoundError:
                    continue  # published once more
        except _Closed:
            return
        except (MarianaError, OSError) as error:
            _log.warning("the index %s goes on with its older segment: %s", self.path, error)
        finally:
            with self._lock:
                self._renewal = None

    def _rest(self, worked: float) -> None:
        """Leave others as much time as this took; the renewal does, for which nobody waits but who closes the index."""
        if self._closed.wait(worked):
            raise _Closed

    def _renewed(self) -> bool:
        """Try it; says whether there is nothing left to do."""
        journal = Journal.open(self.path)  # the other one is in use
        if journal is None:
            return True
        try:
            with journal.reading() as head:
                fresh = Holding(self.path, journal, head, None, self._rest)
            for _ in range(2):  # what came meanwhile, and what came meanwhile
                with journal.reading() as head:
                    if not fresh.goes_on(head):
                        return False
                    fresh.take(journal, head, fresh.sequence, self._rest)
        finally:
            journal.close()
        with self._lock:
            if self._closed.is_set() or self._journal is None or not self._now.behind:
                return True
            with self._journal.reading() as head:
                if not fresh.goes_on(head):
                    return False
                fresh.take(self._journal, head, fresh.sequence)
            self._hold(fresh)
        return True

    def settle(self) -> None:
        """Wait until what is held lies on the segment that counts, if that is being looked after."""
        renewal = self._renewal
        if renewal is not None:
            renewal.join()

    # ---- writing -----------------------------------------------------------------------------------------

    def put(self, entries: Sequence[tuple[bytes, Item]]) -> Receipt:
        """Insert entries, or replace those of the same text; all of them or none.

        Args:
            entries: text and the rest; what a segment takes. Of a text that comes twice, the later one counts.

        Raises:
            StoreError: the disk is full (``errno.ENOSPC``), it may not be written, or others write for too long.
        """

        def work(journal: Journal, now: Holding, sequence: int, _clock: float) -> int:
            journal.put(sequence, entries)
            if now.head is not None and any(item.contexts for _, item in entries):
                names = journal.contexts(now.head.sequence).union(now.layers.reader.tags)
                if len(names) > TAGS_MAX:
                    raise InvalidInputError(
                        f"that makes more than {TAGS_MAX} different contexts in the index"
                    )
            return len(entries)

        return self._write(work)

    def delete(self, texts: Iterable[bytes], ids: Iterable[bytes] = ()) -> Receipt:
        """Delete entries by text, and all names of documents by id; what is not there does not count.

        Raises as :meth:`put`.
        """
        wanted, documents = list(texts), {*ids}

        def work(journal: Journal, now: Holding, sequence: int, _clock: float) -> int:
            there = [text for text in wanted if _is_there(journal, now, text)]
            if documents:
                there += journal.names_of(documents)
                there += [text for text in now.names_of(documents) if not journal.item(text)[0]]
            there = list(dict.fromkeys(there))
            journal.delete(sequence, there)
            return len(there)

        return self._write(work)

    def select(self, text: bytes, client: str | None = None) -> Receipt:
        """Learn that somebody has chosen an entry.

        Args:
            text: of the entry.
            client: who; counts once a day for an entry, and ``journal.CLIENT_SELECTIONS`` times in all. None always
                counts.

        Raises:
            NotFoundError: there is no such entry.
            StoreError: as :meth:`put`.
        """

        def work(journal: Journal, now: Holding, sequence: int, clock: float) -> int:
            if not _is_there(journal, now, text):
                raise NotFoundError("no such entry in the index")
            if client is not None and not journal.spend(client, text, clock):
                return 0
            journal.select(sequence, text, clock, journal.head().half_life)
            return 1

        with self._lock:  # what does not count shall not cost a write
            self._refresh()
            if self._now.given(text) is None:
                raise NotFoundError("no such entry in the index")
            head, journal = self._now.head, self._journal
            if client is not None and journal is not None and head is not None:
                with journal.reading():
                    if not journal.may_spend(client, text, self._time(head)):
                        return Receipt(head.sequence, 0)
        receipt = self._write(work)
        with contextlib.suppress(StoreError):  # the selection counts anyway
            self.fade()
        return receipt

    def fade(self) -> bool:
        """Count what was learnt as of now, if it is time for that; says whether it was."""
        if not self._is_stale(self._now.head):
            return False
        with self._lock:
            journal = self._writable()
            with journal.writing() as head:
                if not self._is_stale(head):  # another process was quicker
                    return False
                journal.age(self._time(head))
            return self._read(journal)

    def _is_stale(self, head: Head | None) -> bool:
        step = 0.0 if head is None else head.half_life / learning.STEPS_PER_HALF_LIFE
        return head is not None and self._time(head) - head.landmark >= step

    def _time(self, head: Head) -> float:
        if self._clock is None:
            self._clock = learning.Clock(head.clock, head.half_life)
        return self._clock.now(head.clock)

    def _write(self, work: Work) -> Receipt:
        """Write one request, together with those of other threads that wait meanwhile."""
        request = _Request(work)
        with self._queue_lock:
            self._queue.append(request)
        with self._lock:
            if request.receipt is None and request.error is None:
                with self._queue_lock:
                    group, self._queue = self._queue, []
                self._commit(group)
        if request.error is not None:
            raise request.error
        if request.receipt is None:
            raise StoreError(errno.EINTR, "the write was interrupted")
        self._compact_if_needed()
        return request.receipt

    def _commit(self, group: list[_Request]) -> None:
        try:
            receipts = self._commit_together(group)
        except Exception as error:  # noqa: BLE001 - each thread raises its own
            if len(group) > 1 and not (isinstance(error, StoreError) and error.errno == errno.EBUSY):
                for request in group:  # one of them is at fault, or too big: the others shall not suffer
                    self._commit([request])
                return
            for request in group:
                request.error = error
            return
        # On the disk from here on.
        try:
            self._read(self._open_journal())
        except Exception as error:  # noqa: BLE001 - likewise
            for request in group:
                request.error = error
            return
        for request, receipt in zip(group, receipts, strict=True):
            request.receipt = receipt

    def _commit_together(self, group: list[_Request]) -> list[Receipt]:
        journal = self._writable()
        with store_errors(f"write to the index {self.path}"), journal.writing() as head:
            self._catch_up(journal, head)
            sequence, clock = head.sequence, self._time(head)
            receipts = []
            for request in group:
                sequence += 1
                receipts.append(Receipt(sequence, request.work(journal, self._now, sequence, clock)))
            journal.advance(sequence, clock)
        return receipts

    def _open_journal(self) -> Journal:
        if self._journal is None:
            raise StoreError(errno.ENOENT, f"{self.path / JOURNAL_FILE} is gone")
        return self._journal

    def _writable(self) -> Journal:
        """Return the journal, made if there is none; what it has is held."""
        self._refresh()  # before the transaction: another segment takes a while, and other processes write meanwhile
        if (
            self._journal is None
        ):  # else the folder's lock is not needed, which a compaction holds for seconds
            with store_errors(f"write to the index {self.path}"), locked(self.path):
                if not (self.path / JOURNAL_FILE).exists():
                    base = folder.current_segment(self.path, None)
                    Journal.create(self.path, base, self._half_life or HALF_LIFE)
            self._hold(self._open(self._now))
        journal = self._open_journal()
        if self._half_life is not None:
            journal.set_half_life(self._half_life)
        return journal

    # ---- compaction --------------------------------------------------------------------------------------

    def compact(self) -> bool:
        """Build a segment of all entries and let it take the place of the segment and the changes.

        Others read and write meanwhile. What was learnt stays apart, since it fades. This index goes on as it is until its
        next look.

        Returns:
            Whether that was done: not when there is no change, nor when another process is at it.

        Raises:
            StoreError: the disk is full or read-only; nothing has changed.
        """
        self.settle()
        with (
            self._lock
        ):  # never waited for with the folder's lock in hand: _writable takes them in this order
            if self._closed.is_set() or self._journal is None:
                return False
            self._refresh()
            now = self._now
            head, items = now.head, dict(now.items)
        if head is None or not items:
            return False
        with locked(self.path, wait=False) as mine:
            if not mine:
                return False
            file = now.layers.build_base(items)
            with store_errors(f"compact the index {self.path}"):
                if not folder.publish_locked(self.path, file, head.sequence, onto=head.base):
                    return False
        return True

    def _compact_if_needed(self) -> None:
        """Start a process that compacts: it takes seconds of Python for millions of entries, and much memory."""
        now = self._now
        if now.behind or len(now.items) < COMPACT_LEAST + now.base.entries // COMPACT_SHARE:
            return
        with self._lock:
            if self._closed.is_set() or (self._compaction is not None and self._compaction.poll() is None):
                return
            command = [sys.executable, "-m", "mariana.live", os.fspath(self.path)]
            try:
                self._compaction = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - ourselves
            except OSError as error:
                _log.warning("cannot compact the index %s; it goes on as it is: %s", self.path, error)

    def backup(self, target: Path) -> None:
        """Copy the index as it is at one time, whole, while others read and write.

        Args:
            target: a folder that is not there.

        Raises:
            InvalidInputError: there is something already.
            StoreError: it cannot be written, or the index not read.
        """
        if target.exists():
            raise InvalidInputError(f"{target} is there already: name a new folder")
        temporary = target.with_name(f".tmp-{secrets.token_hex(8)}")
        with store_errors(f"copy the index {self.path} to {target}"):
            make_folder(temporary)
            try:
                self._copy(temporary)
                fsync_directory(temporary)
                temporary.rename(target)
                fsync_directory(target.parent)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def _copy(self, target: Path) -> None:
        for _ in range(_TRIES):
            with self._lock:
                if self._closed.is_set():
                    raise InvalidInputError("the index is closed")
                head = None if self._journal is None else self._journal.copy(target)
            number = folder.current_segment(self.path, head)
            try:
                with folder.segment_path(self.path, number).open("rb") as file:
                    write_whole(folder.segment_path(target, number), file.read())
            except FileNotFoundError as error:  # compacted meanwhile
                missing = error.filename
            else:
                return
        raise FileFormatError(f"{missing}: is not there, but counts; restore the index from a copy")

    def close(self) -> None:
        """Let go of the files; calls that run finish first, a renewal ends where it is. Closing twice does nothing."""
        with self._lock:
            self._closed.set()
            compaction, self._compaction = self._compaction, None
        if compaction is not None:
            compaction.terminate()  # whatever it has done by now is right
            compaction.wait()
        self.settle()
        with self._lock:
            journal, self._journal = self._journal, None
            if journal is not None and self._pid == os.getpid():
                journal.close()


def _is_there(journal: Journal, now: Holding, text: bytes) -> bool:
    """Whether there is an entry of this text, to a transaction that may have changed it."""
    changed, item = journal.item(text)
    return (item if changed else now.given(text)) is not None
