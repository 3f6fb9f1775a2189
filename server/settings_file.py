"""Limits that are changed in the settings file hold at once: every process looks at the file again and again."""

from __future__ import annotations

import logging
import time
from asyncio import sleep
from collections.abc import Callable

from mariana.environment import config_file
from mariana.errors import MarianaError
from mariana.settings import Settings

from .limits import Limits

LOOK_SECONDS = 0.04
"""Between two looks: a limit holds within this, in each worker; a look costs a few microseconds."""

SETTLED_SECONDS = 0.1
"""Age of a file from which it is taken as it is: before, its clock may not have moved on since the last look."""

_log = logging.getLogger("mariana.server")


class SettingsFile:
    """The settings file, and the limits that follow it.

    Limits that it does not name are what the environment or the defaults say; what wins over the file still does. A
    file that is damaged, or gone, changes nothing.

    Args:
        settings: as they were read at the start.
        read: reads them anew; raises MarianaError when it cannot.
        limits: in force.
        changed: called when some have changed.
    """

    def __init__(
        self, settings: Settings, read: Callable[[], Settings], limits: Limits, changed: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._read = read
        self._limits = limits
        self._changed = changed
        self._seen: tuple[int, ...] | None = None

    async def follow(self) -> None:
        """Look at the file again and again, until cancelled."""
        while True:
            try:
                self.look()
            except Exception:  # noqa: BLE001 - nothing may end the looking
                _log.exception("cannot follow the settings file")
                await sleep(1)
            await sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Take over the limits of the file, if it is another one than at the last look."""
        path = config_file()
        try:
            status = None if path is None else path.stat()
        except OSError:
            return
        if status is None:
            return
        seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        if seen == self._seen:
            return
        settled = not 0 <= time.time() - status.st_mtime < SETTLED_SECONDS
        self._seen = seen if settled else None
        try:
            settings = self._read()
        except MarianaError as error:
            if settled:
                _log.error("the limits stay as they are: %s", " ".join(str(error).split()))
            return
        changed = self._limits.become(Limits.of(settings))
        if changed:
            self._changed()
            _log.info("limits: %s", ", ".join(f"{name} is {value} now" for name, value in changed.items()))
        if settled:
            self._tell_others(settings)

    def _tell_others(self, settings: Settings) -> None:
        """Name the settings that have changed and do not hold yet."""
        before, self._settings = self._settings, settings
        others = [
            name
            for name in Settings.model_fields
            if name not in Limits.__slots__ and getattr(settings, name) != getattr(before, name)
        ]
        if others:
            _log.warning("changed, and in force from the next start or SIGHUP: %s", ", ".join(others))
