"""What the processes of one server tell each other: a piece of memory that is made before they are forked, and goes with them.

Nothing in it outlives the server, whatever ends it, and a process that is killed at any instruction leaves nothing in it
that others would trip over: a number is written in one store, a text has a checksum and is written beside the one that
counts, and the kernel takes the lock back from whoever dies with it.

===========  =======================================================================================================
head         how often something was decided; when the counters were last asked for
decisions    what the API has decided for all workers, those too that start later
clients      the token buckets (``limits``)
packed       what is in the memory of packed weights (``weights``)
slots        one a worker: signs of life, what it serves or cannot, what it has counted
===========  =======================================================================================================
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import mmap
import os
import threading
import time
import zlib
from asyncio import sleep
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mariana._binding.memory import Memory
from mariana.errors import MarianaError

from .cells import CELLS_BYTES, Cells
from .limits import BUCKETS_BYTES

_log = logging.getLogger("mariana.server")

VACANT, STARTING, SERVING, LEAVING = range(4)
"""What the worker of a slot does; vacant: there is none."""

TICK_SECONDS = 0.02
"""Between two looks of a worker at the board: what one decides, the others know within this."""

FOLLOW_SECONDS = 5.0
"""How long who decides something waits for the other workers to have done it; they do it later otherwise."""

FOLD_SECONDS = 0.25
"""The same for who wants the others' counters: later, the numbers of one that is busy are those of its last look."""

PACKED_BYTES = 1 << 17
_HEAD_BYTES = 4096
_TEXT_BYTES = 1 << 18
_CHANGES, _ASKED = range(2)
_STATE, _BEAT, _FOLLOWED, _FOLDED = range(4)
_SLOT_BYTES = 4096 + _TEXT_BYTES + CELLS_BYTES


@dataclass(slots=True)
class Decisions:
    """What the API has decided, and how often, so that every worker finds out what is new to it."""

    unloaded: list[str] = field(default_factory=list)
    """models that are out of service"""
    loads: dict[str, int] = field(default_factory=dict)
    """how often a model was to be loaded anew"""
    looks: int = 0
    """how often one found something new in the store"""


class Text:
    """A text in shared memory: whole or not there.

    Args:
        memory: where.
    """

    def __init__(self, memory: memoryview) -> None:
        self._head = memory[:16].cast("Q")
        self._body = memory[16:]

    def write(self, text: bytes) -> bool:
        """Put a text, and say whether it fits; one that is too long is not put, and the one before is gone."""
        self._head[0] = self._head[1] = 0
        if len(text) > len(self._body):
            return False
        self._body[: len(text)] = text
        self._head[1] = zlib.crc32(text)
        self._head[0] = len(text)
        return True

    def read(self) -> bytes:
        """Return the text; nothing when there is none, or it is being written."""
        for _ in range(3):
            length, checksum = self._head
            if length <= len(self._body):
                text = bytes(self._body[:length])
                if zlib.crc32(text) == checksum:
                    return text
            time.sleep(0.0005)
        return b""


class Slot:
    """What a worker tells.

    Args:
        number: of the slot.
        memory: of the slot.
    """

    def __init__(self, number: int, memory: memoryview) -> None:
        self.number = number
        self._words = memory[:4096].cast("Q")
        self._report = Text(memory[4096 : 4096 + _TEXT_BYTES])
        self._cells = memory[4096 + _TEXT_BYTES :]

    @property
    def state(self) -> int:
        """What the worker does."""
        return self._words[_STATE]

    @state.setter
    def state(self, state: int) -> None:
        self._words[_STATE] = state

    @property
    def beat(self) -> float:
        """When the worker last showed that it lives, by ``time.monotonic``."""
        return self._words[_BEAT] / 1e9

    @property
    def followed(self) -> int:
        """How many decisions it has followed."""
        return self._words[_FOLLOWED]

    @followed.setter
    def followed(self, changes: int) -> None:
        self._words[_FOLLOWED] = changes

    @property
    def folded(self) -> int:
        """When it last counted what it had noted, in nanoseconds of ``time.monotonic_ns``."""
        return self._words[_FOLDED]

    @folded.setter
    def folded(self, when: int) -> None:
        self._words[_FOLDED] = when

    def live(self) -> None:
        """Show that the worker lives."""
        self._words[_BEAT] = time.monotonic_ns()

    def begin(self) -> None:
        """Take the slot for a new worker."""
        self._report.write(b"")
        self.followed = self.folded = 0
        self.live()
        self.state = STARTING

    def report(self, document: Any) -> None:
        """Tell the others something."""
        self._report.write(json.dumps(document).encode())

    def reported(self) -> Any:
        """Return what the worker tells; None when it tells nothing."""
        text = self._report.read()
        return json.loads(text) if text else None

    def cells(self) -> Cells:
        """Return what the worker counts in, with what those before it in this slot have counted."""
        return Cells(self._cells)


class Board:
    """The memory, as every process sees it.

    Args:
        slots: workers that there may be at a time.

    Raises:
        OSError: there is not enough memory.
    """

    def __init__(self, slots: int) -> None:
        before = _HEAD_BYTES + 2 * _TEXT_BYTES + BUCKETS_BYTES + PACKED_BYTES
        size = before + slots * _SLOT_BYTES
        self._file = os.memfd_create("mariana-board", os.MFD_CLOEXEC)
        os.ftruncate(self._file, size)
        memory = memoryview(mmap.mmap(self._file, size))
        self._words = memory[:_HEAD_BYTES].cast("Q")
        at = _HEAD_BYTES + 2 * _TEXT_BYTES
        self._decisions = [
            Text(memory[_HEAD_BYTES + i * _TEXT_BYTES : _HEAD_BYTES + (i + 1) * _TEXT_BYTES])
            for i in range(2)
        ]
        self.clients = memory[at : at + BUCKETS_BYTES]
        self.packed = memory[at + BUCKETS_BYTES : before]
        self.slots = [
            Slot(number, memory[before + number * _SLOT_BYTES : before + (number + 1) * _SLOT_BYTES])
            for number in range(slots)
        ]
        self._thread_lock = threading.Lock()

    @contextmanager
    def lock(self, *, wait: bool = True) -> Iterator[bool]:
        """Keep all other processes and threads out; gives whether it does.

        Args:
            wait: until the others are out. Not for an event loop.
        """
        if not self._thread_lock.acquire(blocking=wait):  # the kernel's lock belongs to the whole process
            yield False
            return
        try:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            try:
                yield True
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)
        finally:
            self._thread_lock.release()

    @property
    def changes(self) -> int:
        """How many decisions there have been."""
        return self._words[_CHANGES]

    @property
    def asked(self) -> int:
        """When somebody last wanted everybody's counters, by ``time.monotonic_ns``."""
        return self._words[_ASKED]

    @asked.setter
    def asked(self, when: int) -> None:
        self._words[_ASKED] = when

    def decisions(self) -> Decisions:
        """Return what has been decided."""
        text = self._decisions[self.changes & 1].read()
        return Decisions(**json.loads(text)) if text else Decisions()

    def decide(self, change: Callable[[Decisions], None]) -> None:
        """Decide something. Not for an event loop: it may wait.

        The text is written beside the one that counts; that it counts, and that there is something new, is one store.

        Raises:
            MarianaError: so much has been decided that it does not fit.
        """
        with self.lock():
            decisions = self.decisions()
            change(decisions)
            document = {"unloaded": decisions.unloaded, "loads": decisions.loads, "looks": decisions.looks}
            changes = self.changes + 1
            if not self._decisions[changes & 1].write(json.dumps(document).encode()):
                raise MarianaError("too many models have been loaded and unloaded; restart the server")
            self._words[_CHANGES] = changes

    def live(self) -> list[Slot]:
        """Return the slots with workers that serve."""
        return [slot for slot in self.slots if slot.state == SERVING]


class Team:
    """The board, as one worker sees it.

    Args:
        board: the memory.
        slot: the worker's own.
        supervisor: its process.
        weights: where packed weights are; None: every worker has its own.
    """

    def __init__(self, board: Board, slot: Slot, supervisor: int, weights: Memory | None = None) -> None:
        self.board = board
        self.slot = slot
        self.weights = weights
        self.cells = slot.cells()
        self._counted = [self.cells if other is slot else other.cells() for other in board.slots]
        self._supervisor = supervisor

    @property
    def orphaned(self) -> bool:
        """Whether the supervisor has gone."""
        return os.getppid() != self._supervisor

    def others(self) -> list[Slot]:
        """Return the slots of the other workers that serve."""
        return [slot for slot in self.board.live() if slot.number != self.slot.number]

    async def followed(self, changes: int) -> None:
        """Wait until all workers have followed so many decisions."""
        await _until(lambda: all(slot.followed >= changes for slot in self.others()), FOLLOW_SECONDS)

    async def gather(self) -> None:
        """Have all workers count what they have noted."""
        now = self.board.asked = time.monotonic_ns()
        await _until(lambda: all(slot.folded >= now for slot in self.others()), FOLD_SECONDS)

    def counted(self) -> Iterator[tuple[Cells, bool]]:
        """Give the cells of every slot, and whether its worker is there."""
        for slot, cells in zip(self.board.slots, self._counted, strict=True):
            yield cells, slot is self.slot or slot.state in (SERVING, LEAVING)

    async def attend(
        self, count: Callable[[], None], follow: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Look at the board again and again, until cancelled.

        Args:
            count: counts what was noted; called when somebody wants to know.
            follow: does what has been decided.
        """
        following: asyncio.Task[None] | None = None
        while True:
            await sleep(TICK_SECONDS)
            try:
                if self.board.asked > self.slot.folded:
                    now = time.monotonic_ns()
                    count()
                    self.slot.folded = now
                if following is not None and following.done():
                    following.result()
                    following = None
                if following is None and self.board.changes != self.slot.followed:
                    following = asyncio.create_task(follow())
            except Exception:  # noqa: BLE001 - nothing may end the looking
                following = None
                _log.exception("cannot follow the other workers")
                await sleep(1)


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:  # noqa: ASYNC110 - no event comes from another process
        await sleep(0.002)
