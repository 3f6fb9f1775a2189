"""From the store into service: loads, looks for what is new, swaps it in between two requests, takes it out again.

A new version is loaded beside the old one in a thread, checked completely (its file, and the golden rows in it, which
also warm it up), and only then put where requests look. One that fails never replaces one that serves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import sleep
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from mariana.autocomplete import open_index
from mariana.errors import MarianaError, NotFoundError
from mariana.model import Model, load_model
from mariana.settings import Settings
from mariana.store import Store

from .policy import POLICY_FILE, Policy, read_policy, write_policy
from .state import ServedIndex, ServedModel, State
from .versions import Version

_log = logging.getLogger("mariana.server")
_Thing = TypeVar("_Thing")

Seen = tuple[tuple[str, int, int, int], ...]
"""What tells whether something in the store is as it was: names, inodes, times and sizes of its files."""


class _Loaded(NamedTuple):
    """What a look at one model's folder brought."""

    served: ServedModel
    files: dict[int, Seen]
    tried: int
    """versions that were loaded, or failed to"""


class Lifecycle:
    """Keeps a state like its store.

    Args:
        settings: the store, and how it is looked at.
        state: what it keeps.
    """

    def __init__(self, settings: Settings, state: State) -> None:
        self._settings = settings
        self._state = state
        self._store = Store(settings.store)
        self._seen: dict[str, Seen] = {}
        self._files: dict[str, dict[int, Seen]] = {}
        self._lock = asyncio.Lock()

    def start(self) -> None:
        """Load everything. What cannot be loaded is logged and told by the API; it stops nothing else."""
        state = self._state
        for name in self._model_names():
            self._seen[f"models/{name}"] = self._look_at_model(name)
            self._put(self._load_model(name, None, {}))
        for name in self._index_names():
            state.indexes[name] = self._load_index(name)
            self._seen[f"indexes/{name}"] = self._look_at_index(name)
        if not state.models and not state.indexes:
            hint = "" if self._settings.reload_store else ", then restart"
            _log.warning(
                "the store %s is empty; fill it with mariana demo, mariana train or mariana index%s",
                self._settings.store,
                hint,
            )

    async def watch(self) -> None:
        """Look at the store again and again, until cancelled."""
        while True:
            await sleep(self._settings.reload_interval)
            try:
                await self.refresh()
            except Exception:  # noqa: BLE001 - nothing may end the looking
                _log.exception("cannot look at the store")

    async def refresh(self) -> None:
        """Bring in what is new in the store, and take out what is gone."""
        async with self._lock:
            seen = await asyncio.to_thread(self._look)
            changed = [thing for thing in seen if seen[thing] != self._seen.get(thing)]
            for thing in changed:
                kind, _, name = thing.partition("/")
                await (self._refresh_model(name) if kind == "models" else self._refresh_index(name))
            gone = [thing for thing in self._seen if thing not in seen]
            for thing in gone:
                kind, _, name = thing.partition("/")
                _log.info("%s is gone from the store", thing)
                if kind == "models":
                    self._state.models.pop(name, None)
                    self._files.pop(name, None)
                elif (index := self._state.indexes.pop(name, None)) is not None and index.index is not None:
                    index.index.close()
            self._seen = seen
            if changed or gone:
                self._state.changed()

    async def load(self, name: str) -> None:
        """Put a model into service, or look at its folder anew.

        Raises:
            NotFoundError: the store has none of this name.
            MarianaError: no version of it could be loaded; the message is of its newest one.
        """
        async with self._lock:
            if name not in self._model_names():
                raise NotFoundError("no such model")
            served = self._state.models.get(name)
            if served is not None and served.unloaded:
                del self._state.models[name]
            self._seen[f"models/{name}"] = self._look_at_model(name)
            await self._refresh_model(name)
            self._state.changed()
            served = self._state.models[name]
            if not served.versions:
                raise MarianaError(
                    served.failures[max(served.failures)] if served.failures else "it has no version"
                )

    async def unload(self, name: str) -> None:
        """Take a model out of service; requests that run finish. It stays out until it is loaded again.

        Raises:
            NotFoundError: there is none of this name.
        """
        async with self._lock:
            served = self._state.model(name)
            self._files.pop(name, None)
            self._state.models[name] = ServedModel(name, {}, {}, served.policy, unloaded=True)
            self._state.changed()

    async def set_policy(self, name: str, policy: Policy) -> None:
        """Publish the policy of a model and follow it.

        Raises:
            NotFoundError: there is no such model, or no version that the policy names.
            StoreError: the disk is full or read-only.
        """
        async with self._lock:
            self._state.model(name)
            missing = policy.wanted() - set(self._store.model_versions(name))
            if missing:
                raise NotFoundError("no such version")
            await asyncio.to_thread(write_policy, self._folder(name), policy)
        await self.load(name)

    async def _refresh_model(self, name: str) -> None:
        before = self._state.models.get(name)
        if before is not None and before.unloaded:
            return
        loaded = await asyncio.to_thread(self._load_model, name, before, self._files.get(name, {}))
        self._put(loaded)
        self._count(loaded)

    def _count(self, loaded: _Loaded) -> None:
        reloads = self._state.metrics.reloads
        failed = min(loaded.tried, len(loaded.served.failures))
        reloads["failed"] += failed
        reloads["ok"] += loaded.tried - failed

    async def _refresh_index(self, name: str) -> None:
        after = await asyncio.to_thread(self._load_index, name)
        self._state.indexes[name] = after
        self._state.metrics.reloads["ok" if after.index is not None else "failed"] += 1

    def _put(self, loaded: _Loaded) -> None:
        self._state.models[loaded.served.name] = loaded.served
        self._files[loaded.served.name] = loaded.files

    def _load_model(self, name: str, before: ServedModel | None, known: Mapping[int, Seen]) -> _Loaded:
        """Return a model as its folder is now; versions whose files have not changed are taken over."""
        policy, _ = self._try(partial(read_policy, self._folder(name)), f"read the policy of {name}")
        if policy is None:
            policy = Policy() if before is None else before.policy
        numbers = (
            self._try(partial(self._store.model_versions, name), f"list the versions of {name}")[0] or []
        )
        wanted = policy.wanted()
        versions: dict[int, Version] = {}
        failures: dict[int, str] = {}
        files: dict[int, Seen] = {}
        tried = 0
        for number in reversed(numbers):
            if len(versions) >= self._settings.keep_versions and number not in wanted:
                continue
            path = self._store.path / "models" / name / str(number)
            files[number] = _look([*_children(path)])
            old = None if before is None else before.versions.get(number)
            if before is not None and files[number] == known.get(number):
                if old is not None:
                    versions[number] = old
                if number in before.failures:
                    failures[number] = before.failures[number]
                continue
            tried += 1
            model, failure = self._try(
                partial(self._load_version, name, number), f"load model {name} {number}"
            )
            if model is not None:
                stats = self._state.metrics.model(name, number)
                versions[number] = Version(name, number, model, self._settings, stats, time.time())
                if before is not None:
                    _log.info("model %s %d serves", name, number)
            else:
                failures[number] = failure
                if old is not None:
                    versions[number] = old
        return _Loaded(ServedModel(name, versions, failures, policy), files, tried)

    def _load_version(self, name: str, number: int) -> Model:
        settings = self._settings
        path = self._store.model_path(name, number)
        return load_model(path, isa=settings.isa, precision=settings.precision, validate=True)

    def _load_index(self, name: str) -> ServedIndex:
        index, failure = self._try(
            partial(open_index, self._store.index_path(name), half_life=self._settings.learn_half_life),
            f"open index {name}",
        )
        return ServedIndex(
            name, index, None if index is not None else failure, self._state.metrics.index(name)
        )

    def _look(self) -> dict[str, Seen]:
        return {
            **{f"models/{name}": self._look_at_model(name) for name in self._model_names()},
            **{f"indexes/{name}": self._look_at_index(name) for name in self._index_names()},
        }

    def _look_at_model(self, name: str) -> Seen:
        folder = self._folder(name)
        files = [folder / POLICY_FILE]
        with suppress(OSError):
            for number in self._store.model_versions(name):
                files += _children(folder / str(number))
        return _look(files)

    def _look_at_index(self, name: str) -> Seen:
        served = self._state.indexes.get(name)
        if served is not None and served.index is not None:
            return ()  # one that is open looks after itself: see follow
        return _look(_children(self._store.new_index_path(name)))

    def _folder(self, name: str) -> Path:
        return self._store.path / "models" / name

    def _model_names(self) -> list[str]:
        return self._try(self._store.model_names, "list the models")[0] or []

    def _index_names(self) -> list[str]:
        return self._try(self._store.index_names, "list the indexes")[0] or []

    def _try(self, call: Callable[[], _Thing], doing: str) -> tuple[_Thing | None, str]:
        """Return what a call gives; or None, and why, with paths as they are inside the store."""
        try:
            return call(), ""
        except (MarianaError, OSError) as error:
            reason = " ".join(str(error).split())
            _log.error("cannot %s: %s", doing, reason)
            return None, reason.replace(f"{self._settings.store}/", "")
        except Exception as error:  # noqa: BLE001 - one thing of the store must not take the others with it
            _log.exception("cannot %s", doing)
            return None, f"{type(error).__name__}; the server's log has the particulars"


def _children(folder: Path) -> list[Path]:
    with suppress(OSError):
        return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    return []


def _look(files: list[Path]) -> Seen:
    seen = []
    for path in files:
        with suppress(OSError):
            status = path.stat()
            seen.append((path.name, status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(seen)
