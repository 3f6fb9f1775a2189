"""The process above the workers: it holds the listening socket, starts workers, and looks after them.

It serves nothing and loads nothing of the store, so that little can go wrong in it. Workers are forked from it, after
everything has been imported: they begin within milliseconds and share that memory. It has one thread, and waits for
signals in one place, so that nothing happens to it between two instructions.

=================  =================================================================================================
a worker ends      another one takes its place; at once, or after a pause when that happens again and again
a worker hangs     it is killed after ``worker_timeout``, and ends like that
SIGHUP             the settings are read again, and the workers replaced one by one: the next one serves, the old one
                   accepts no more connections, finishes what it has, and ends. When the new one does not come to
                   serve, the old ones stay
SIGTTIN, SIGTTOU   a worker more, a worker less
SIGTERM, SIGINT    all stop, and finish what they have; the second one ends all at once
it dies            the workers notice, finish what they have, and end
=================  =================================================================================================
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from mariana.errors import MarianaError

from .board import LEAVING, SERVING, STARTING, VACANT, Slot
from .worker import RETIRE

SIGNALS = {
    signal.SIGCHLD,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGTTIN,
    signal.SIGTTOU,
}
TRIES = 3
"""Workers that may end before any has served; then there is no use in going on."""

PAUSE_SECONDS, PAUSE_MAX_SECONDS = 0.1, 30.0
"""Before a worker is started in the place of one that has not lived for long: the first, doubled each time, and the last."""

LIVED_SECONDS = 10.0
"""After which the end of a worker is not taken for something that happens again."""

Work = Callable[[Slot], int]
"""What a worker does, from its start to its exit status."""

_log = logging.getLogger("mariana.server")


@dataclass(frozen=True, slots=True)
class Plan:
    """What the supervisor goes by.

    Attributes:
        workers: how many.
        work: what each does.
        timeout: seconds without a sign of life.
        patience: seconds in which a worker that was told to stop has to end.
    """

    workers: int
    work: Work
    timeout: float
    patience: float


@dataclass(slots=True)
class _Worker:
    pid: int
    slot: Slot
    plan: Plan
    began: float
    deadline: float | None = None
    """until when it has to end; None: it was not told to"""
    killed: str = ""
    """why it was killed"""

    @property
    def active(self) -> bool:
        return self.deadline is None


class Supervisor:
    """Keeps workers going.

    Args:
        listener: the socket that all workers accept connections from.
        slots: places for workers; one more than workers at least.
        make_plan: reads the settings, and says what follows from them; called at the start and for SIGHUP.
        ready: called when the first worker serves.
    """

    def __init__(
        self,
        listener: socket.socket,
        slots: list[Slot],
        make_plan: Callable[[], Plan],
        ready: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._slots = slots
        self._make_plan = make_plan
        self._plan = make_plan()
        self._before: Plan | None = None
        self._wanted = self._plan.workers
        self._workers: list[_Worker] = []
        self._ready = ready
        self._served = False
        self._stopping = False
        self._ended_early = 0
        self._start_at = 0.0
        self._awake = time.monotonic()
        self._excused = 0.0

    def run(self) -> int:
        """Keep workers going until a signal ends it; return the exit status."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            gc.disable()  # it has little to collect
            gc.freeze()  # what is here now stays where it is: a collection in a worker would copy every page of it
            while True:
                self._reap()
                if self._stopping and not self._workers:
                    return 0
                if not self._served and self._ended_early >= TRIES:
                    self._kill_all("")
                    raise MarianaError(
                        f"{TRIES} workers ended before they could serve; the log above says how, and "
                        "mariana serve --workers 1 shows more"
                    )
                self._watch()
                self._steer(before)
                found = signal.sigtimedwait(SIGNALS, self._rest())
                if found is not None and found.si_signo != signal.SIGCHLD:
                    self._obey(signal.Signals(found.si_signo))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _rest(self) -> float:
        """Return how long nothing but a signal can need it."""
        moving = len(self._active()) != self._wanted or any(
            not worker.active or worker.slot.state == STARTING or worker.plan is not self._plan
            for worker in self._workers
        )
        return 0.01 if moving else 0.5

    def _active(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.active]

    def _obey(self, number: signal.Signals) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._stopping:
                self._kill_all("it was told to stop twice")
                return
            self._stopping = True
            self._listener.close()  # the workers still have it
            for worker in self._workers:
                self._tell(worker, signal.SIGTERM)
        elif self._stopping:
            pass
        elif number == signal.SIGHUP:
            self._renew()
        elif number == signal.SIGTTIN:
            self._want(self._wanted + 1)
        elif number == signal.SIGTTOU:
            self._want(self._wanted - 1)

    def _want(self, workers: int) -> None:
        most = len(self._slots) - 1  # one is for a worker that comes before another one goes
        self._wanted = min(max(workers, 1), most)
        if workers > most:
            _log.warning("no more than %d workers without a new start", most)

    def _renew(self) -> None:
        """Read the settings again, and replace the workers."""
        try:
            plan = self._make_plan()
        except (MarianaError, OSError) as error:
            _log.error("the workers stay as they are: %s", " ".join(str(error).split()))
            return
        gc.collect()
        gc.freeze()
        _log.info("the workers are replaced one by one")
        self._before, self._plan = self._plan, plan
        self._want(plan.workers)
        self._start_at = 0.0

    def _steer(self, mask: set[signal.Signals] | set[int]) -> None:
        """Take the next step to what is wanted."""
        if self._stopping:
            return
        active = self._active()
        outdated = [worker for worker in active if worker.plan is not self._plan]
        starting = any(worker.slot.state == STARTING for worker in active)
        if outdated:  # one at a time: the next one serves, the old one ends
            if starting or len(active) < len(self._workers):
                return
            if len(active) <= self._wanted:
                self._start(mask)
            else:
                self._tell(outdated[0], RETIRE)
            return
        self._before = None
        for worker in active[self._wanted :]:
            self._tell(worker, RETIRE)
        wanted = (
            self._wanted if self._served else 1
        )  # the first alone: it serves sooner, and packs for the others
        while len(self._active()) < wanted and time.monotonic() >= self._start_at:
            if not self._start(mask):
                break

    def _start(self, mask: set[signal.Signals] | set[int]) -> bool:
        """Fork a worker; say whether there is a place for it."""
        slot = next((slot for slot in self._slots if slot.state == VACANT), None)
        if slot is None:
            return False
        slot.begin()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:
            slot.state = VACANT
            self._start_at = time.monotonic() + PAUSE_MAX_SECONDS
            _log.error("cannot start a worker: %s; another try in %.0f s", error.strerror, PAUSE_MAX_SECONDS)
            return False
        if pid == 0:
            _be_worker(self._plan.work, slot, mask)
        self._workers.append(_Worker(pid, slot, self._plan, time.monotonic()))
        return True

    def _tell(self, worker: _Worker, number: signal.Signals) -> None:
        """Tell a worker to end."""
        worker.deadline = time.monotonic() + worker.plan.patience
        os.kill(worker.pid, number)  # it has not been waited for: the number is still its own

    def _kill(self, worker: _Worker, reason: str) -> None:
        worker.killed = reason
        os.kill(worker.pid, signal.SIGKILL)

    def _kill_all(self, reason: str) -> None:
        for worker in self._workers:
            self._kill(worker, reason)

    def _reap(self) -> None:
        """Take note of workers that have ended."""
        for worker in list(self._workers):
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid == 0:
                continue
            served = worker.slot.state in (SERVING, LEAVING)
            worker.slot.state = VACANT
            self._workers.remove(worker)
            if not worker.active or self._stopping:
                if worker.killed:
                    _log.warning("worker %d was killed: %s", pid, worker.killed)
                continue
            self._replace(worker, _how(status), served=served)

    def _replace(self, worker: _Worker, how: str, *, served: bool) -> None:
        """See that another worker comes in the place of one that has ended."""
        how = worker.killed or how
        if not served and self._before is not None and worker.plan is self._plan:
            _log.error("the old workers stay: worker %d, the first of the new ones, %s", worker.pid, how)
            self._plan, self._before = self._before, None
            self._want(self._plan.workers)
            for other in self._workers:
                if other.plan is not self._plan and other.active:
                    self._tell(other, RETIRE)
            return
        now = time.monotonic()
        if served and now - worker.began >= LIVED_SECONDS:
            self._ended_early = 0
        else:
            self._ended_early += 1
        pause = min(PAUSE_SECONDS * 2 ** (self._ended_early - 2), PAUSE_MAX_SECONDS)
        pause = pause if self._ended_early > 1 else 0.0
        self._start_at = now + pause
        when = f"in {pause:.1f} s" if pause else "now"
        _log.error("worker %d %s; another one takes its place %s", worker.pid, how, when)

    def _watch(self) -> None:
        """Kill workers that hang; see who serves."""
        now = time.monotonic()
        if now - self._awake > 2.0:  # it was itself stopped: so were they, perhaps
            self._excused = now
        self._awake = now
        for worker in self._workers:
            if worker.killed:
                continue
            if worker.deadline is not None:
                if now > worker.deadline:
                    self._kill(worker, "it did not stop in time")
                continue
            slot = worker.slot
            if slot.state == SERVING and not self._served:
                self._served = True
                self._ready()
            bound = worker.plan.timeout * (10 if slot.state == STARTING else 1)
            if now - max(slot.beat, worker.began, self._excused) > bound:
                self._kill(worker, f"gave no sign of life for {bound:.0f} s")


def _be_worker(work: Work, slot: Slot, mask: set[signal.Signals] | set[int]) -> None:
    """Do a worker's work, and end the process; nothing of the supervisor is gone back to."""
    status = 1
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal sends both to all processes
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = work(slot)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except MarianaError as error:
        _log.error("a worker cannot serve: %s", " ".join(str(error).split()))
    except BaseException:  # noqa: BLE001 - whatever it is, it ends here
        _log.error("a worker ended: %s", traceback.format_exc().strip())
    finally:
        try:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
