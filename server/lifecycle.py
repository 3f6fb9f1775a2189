"""From the store into service: loads, looks for what is new, swaps it in between two requests, takes it out again.

A new version is loaded beside the old one in a thread, checked completely (its file, and the golden rows in it, which
also warm it up), and only then put where requests look. One that fails never replaces one that serves.

Every worker has the whole of this for itself, and the store is the same for all. What the store does not tell is on the
board: what the API took out of service or wants loaded anew, and that somebody has seen something new. Whoever decides
writes it there first and then follows it like all the others (:meth:`Lifecycle.follow`), so that a worker that was
restarted, or two that decide at once, come to the same.
"""

from __future__ import annotations

import asyncio
import copy
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

from .board import Decisions
from .heap import give_back, give_back_code
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
        self._decided = Decisions()
        """What has been decided where there is only this process."""
        self._followed = Decisions()

    def start(self) -> None:
        """Load everything. What cannot be loaded is logged and told by the API; it stops nothing else."""
        state, team = self._state, self._state.team
        if team is not None:
            team.slot.followed = team.board.changes
            self._followed = team.board.decisions()
            if not self._settings.reload_store and team.others():
                team.board.decide(_look_again)  # this worker serves the store as it is now: so shall all
        for name in self._model_names():
            self._seen[f"models/{name}"] = self._look_at_model(name)
            if name in self._followed.unloaded:
                self._put_out(name)
            else:
                self._put(self._load_model(name, None, {}))
            self._live()
        for name in self._index_names():
            state.indexes[name] = self._load_index(name)
            self._seen[f"indexes/{name}"] = self._look_at_index(name)
            self._live()
        state.report()
        give_back()
        give_back_code()
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
        """Bring in what is new in the store, and take out what is gone; other workers do it at once too."""
        async with self._lock:
            seen = await asyncio.to_thread(self._look)
            if seen == self._seen:
                return
            await self._decide(_look_again)
            await self._take_over(seen)

    async def follow(self) -> None:
        """Do what has been decided, here or in another worker."""
        async with self._lock:
            team = self._state.team
            changes = 0 if team is None else team.board.changes
            decisions = self._decided if team is None else team.board.decisions()
            before, self._followed = self._followed, copy.deepcopy(decisions)
            touched = False
            if decisions.looks != before.looks:
                await self._take_over(await asyncio.to_thread(self._look))
            for name, count in decisions.loads.items():
                if count != before.loads.get(name, 0) and name in self._model_names():
                    await self._load(name)
                    touched = True
            for name in decisions.unloaded:
                served = self._state.models.get(name)
                if served is not None and not served.unloaded:
                    self._put_out(name)
                    touched = True
            if touched:
                self._changed()
            if team is not None:
                team.slot.followed = changes

    async def _decide(self, change: Callable[[Decisions], None]) -> None:
        team = self._state.team
        if team is None:
            change(self._decided)
        else:
            await asyncio.to_thread(team.board.decide, change)  # the board's lock may have to be waited for

    async def _decide_and_follow(self, change: Callable[[Decisions], None]) -> None:
        """Decide something, and return when it has been done in all workers."""
        await self._decide(change)
        team = self._state.team
        changes = 0 if team is None else team.board.changes
        await self.follow()
        if team is not None:
            await team.followed(changes)

    async def _take_over(self, seen: dict[str, Seen]) -> None:
        """Make the state like the store, as it was seen."""
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
            self._changed()

    def _changed(self) -> None:
        self._state.changed()
        self._state.report()
        give_back()

    def _live(self) -> None:
        if self._state.team is not None:
            self._state.team.slot.live()

    async def load(self, name: str) -> None:
        """Put a model into service, or look at its folder anew: in all workers when this returns.

        Raises:
            NotFoundError: the store has none of this name.
            MarianaError: no version of it could be loaded; the message is of its newest one.
        """

        def change(decisions: Decisions) -> None:
            decisions.loads[name] = decisions.loads.get(name, 0) + 1
            if name in decisions.unloaded:
                decisions.unloaded.remove(name)

        if name not in self._model_names():
            raise NotFoundError("no such model")
        await self._decide_and_follow(change)
        served = self._state.models.get(name)
        if served is not None and not served.versions and not served.unloaded:
            raise MarianaError(
                served.failures[max(served.failures)] if served.failures else "it has no version"
            )

    async def _load(self, name: str) -> None:
        served = self._state.models.get(name)
        if served is not None and served.unloaded:
            del self._state.models[name]
        self._seen[f"models/{name}"] = self._look_at_model(name)
        await self._refresh_model(name)

    async def unload(self, name: str) -> None:
        """Take a model out of service, in all workers when this returns; requests that run finish.

        It stays out until it is loaded again.

        Raises:
            NotFoundError: there is none of this name.
        """

        def change(decisions: Decisions) -> None:
            if name not in decisions.unloaded:
                decisions.unloaded.append(name)

        self._state.model(name)
        await self._decide_and_follow(change)

    def _put_out(self, name: str) -> None:
        served = self._state.models.get(name)
        self._files.pop(name, None)
        policy = Policy() if served is None else served.policy
        self._state.models[name] = ServedModel(name, {}, {}, policy, unloaded=True)

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
        failed = min(loaded.tried, len(loaded.served.failures))
        self._state.metrics.reloaded(ok=loaded.tried - failed, failed=failed)

    async def _refresh_index(self, name: str) -> None:
        after = await asyncio.to_thread(self._load_index, name)
        self._state.indexes[name] = after
        self._state.metrics.reloaded(ok=after.index is not None, failed=after.index is None)

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
                versions[number] = self._version(name, number, model)
                if before is not None:
                    _log.info("model %s %d serves", name, number)
            else:
                failures[number] = failure
                if old is not None:
                    versions[number] = old
        return _Loaded(ServedModel(name, versions, failures, policy), files, tried)

    def _version(self, name: str, number: int, model: Model) -> Version:
        stats, window = self._state.metrics.model(name, number), self._settings.batch_window
        limits = self._state.limits
        return Version(name, number, model, limits, stats, loaded=time.time(), window=window)

    def _load_version(self, name: str, number: int) -> Model:
        settings = self._settings
        path = self._store.model_path(name, number)
        team = self._state.team
        return load_model(
            path,
            isa=settings.isa,
            precision=settings.precision,
            memory=None if team is None else team.weights,
            validate=True,
        )

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


def _look_again(decisions: Decisions) -> None:
    decisions.looks += 1


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
