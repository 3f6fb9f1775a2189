"""Keeps the indexes of a process up to date with what other processes write to them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from mariana.autocomplete import Index
from mariana.errors import MarianaError, StoreError

POLL_SECONDS = 0.03
"""Between two looks: a change is seen within this and the time to take it over; a look costs microseconds."""

FADE_SECONDS = 60.0
"""Between two looks whether it is time to let fade what was learnt."""

_log = logging.getLogger("mariana.server")


class Follower:
    """A thread that looks at indexes again and again.

    Args:
        indexes: gives those that are open, at each look.
    """

    def __init__(self, indexes: Callable[[], Iterable[tuple[str, Index]]]) -> None:
        self._indexes = indexes
        self._stopping = threading.Event()
        self.told: dict[str, str] = {}
        """Why an index is not up to date, by name."""
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns when no look is under way."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        fade_at = time.monotonic()
        while not self._stopping.wait(POLL_SECONDS):
            fade = time.monotonic() >= fade_at
            if fade:
                fade_at = time.monotonic() + FADE_SECONDS
            for name, index in list(self._indexes()):
                self._look(name, index, fade=fade)

    def _look(self, name: str, index: Index, *, fade: bool) -> None:
        try:
            index.refresh(wait=False)  # one that waits for its disk shall not hold up the others
            if fade:
                with suppress(StoreError):  # it ranks as before where nothing can be written
                    index.fade()
        except (MarianaError, OSError) as error:
            reason = " ".join(str(error).split())
            if self.told.get(name) != reason:  # once, not thirty times a second
                self.told[name] = reason
                _log.error("index %s serves what it last saw: %s", name, reason)
        else:
            if self.told.pop(name, None):
                _log.info("index %s is up to date again", name)
