"""What a server holds while it runs, by name: the models and indexes that serve, and why others do not.

What is in here is replaced whole, between two requests, by ``lifecycle``; a request that has looked something up keeps
it to its end, so no answer mixes two versions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import random
from typing import Annotated, Any, cast

from fastapi import Depends, Request

from mariana.autocomplete import Index
from mariana.errors import NotFoundError

from .board import Team
from .limits import Limits
from .metrics import IndexStats, Metrics
from .policy import Policy
from .versions import Version


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The versions of a model: those that serve, and why the others do not.

    Attributes:
        name: its name.
        versions: those that serve.
        failures: why a version does not, or why its newer file does not replace it.
        policy: what the operator wants served.
        unloaded: taken out of service by the API.
    """

    name: str
    versions: Mapping[int, Version]
    failures: Mapping[int, str]
    policy: Policy = field(default_factory=Policy)
    unloaded: bool = False

    @property
    def version(self) -> int | None:
        """The version that serves when none is named.

        It is the highest that could be loaded, and not above the pin or, without a pin, the label ``stable``. A label
        ``canary`` with a share of the traffic is not part of that: it is tried on some.
        """
        limit = self.policy.version or self.policy.labels.get("stable")
        canary = self.canary
        usual = [
            number
            for number in self.versions
            if (limit is None or number <= limit) and (limit is not None or number != canary)
        ]
        return max(usual, default=None)

    @property
    def canary(self) -> int | None:
        """The version that gets a share of the requests that name none, if there is one."""
        number = self.policy.labels.get("canary")
        return number if self.policy.canary > 0 and number in self.versions else None

    def get(self, version: int | None = None) -> Version:
        """Return a version; NotFoundError when it does not serve."""
        found = self.versions.get(self.version or 0 if version is None else version)
        if found is None:
            raise NotFoundError("no such version")
        return found

    def pick(self) -> Version:
        """Return the version for one request that names none; NotFoundError when none serves."""
        canary = self.canary
        if canary is not None and random() < self.policy.canary:  # noqa: S311 - it shares traffic, it hides nothing
            return self.versions[canary]
        return self.get()

    def picker(self) -> Callable[[], Version]:
        """Return what :meth:`pick` is for this model: found out once, not for each request."""
        if self.canary is not None:
            return self.pick
        version = self.get()
        return lambda: version

    def labelled(self, label: str) -> Version:
        """Return the version with a label; NotFoundError when there is none, or it does not serve."""
        return self.get(self.policy.labels.get(label, 0))


@dataclass(frozen=True, slots=True)
class ServedIndex:
    """An index, or why it does not serve."""

    name: str
    index: Index | None
    failure: str | None
    stats: IndexStats


@dataclass(slots=True)
class State:
    """Everything that serves, by name."""

    limits: Limits
    """In force."""
    models: dict[str, ServedModel] = field(default_factory=dict)
    indexes: dict[str, ServedIndex] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=Metrics)
    ready: bool = True
    """False while this process is about to stop: connections are told to close."""
    replaced: bool = False
    """Whether another worker has taken over: the service goes on when this process stops."""
    team: Team | None = None
    """The other workers; None: this process is the only one."""
    trouble: Mapping[str, str] = field(default_factory=dict)
    """Why an index that serves is not up to date, by name."""
    on_change: list[Callable[[], None]] = field(default_factory=list)
    """Called on the event loop after something in here was replaced."""

    def model(self, name: str) -> ServedModel:
        """Return a model; NotFoundError when the store has none of this name."""
        try:
            return self.models[name]
        except KeyError:
            raise NotFoundError("no such model") from None

    def index(self, name: str) -> ServedIndex:
        """Return an index; NotFoundError when the store has none of this name."""
        try:
            return self.indexes[name]
        except KeyError:
            raise NotFoundError("no such index") from None

    @property
    def clients(self) -> memoryview | None:
        """The token buckets that workers share."""
        return None if self.team is None else self.team.board.clients

    def fit(self) -> None:
        """Follow limits that have changed since a version was loaded."""
        for served in self.models.values():
            for version in served.versions.values():
                version.fit()

    def failures(self, served: ServedModel) -> dict[int, str]:
        """Return why versions of a model do not serve, in this worker or in another."""
        found = dict(served.failures)
        for report in self._reports("models"):
            for number, reason in report.get(served.name, {}).items():
                found.setdefault(int(number), f"another worker cannot serve it: {reason}")
        return found

    def trouble_of(self, served: ServedIndex) -> str | None:
        """Return why an index does not serve, or is not up to date, in this worker or in another."""
        reason = served.failure or self.trouble.get(served.name)
        if reason is None:
            elsewhere = (report.get(served.name) for report in self._reports("indexes"))
            found = next((reason for reason in elsewhere if reason is not None), None)
            reason = None if found is None else f"another worker cannot serve it: {found}"
        return reason

    async def gather(self) -> None:
        """Have the other workers count what they have noted."""
        if self.team is not None:
            await self.team.gather()

    def report(self) -> None:
        """Tell the other workers what cannot be served here."""
        if self.team is not None:
            models = {name: dict(served.failures) for name, served in self.models.items() if served.failures}
            indexes = {name: served.failure for name, served in self.indexes.items() if served.failure}
            self.team.slot.report({"models": models, "indexes": indexes})

    def _reports(self, kind: str) -> Iterator[Mapping[str, Any]]:
        for slot in () if self.team is None else self.team.others():
            report = slot.reported()
            if report is not None:
                yield report[kind]

    def changed(self) -> None:
        """Tell whoever wants to know."""
        versions = {
            (name, number) for name, m in self.models.items() for number in {*m.versions, *m.failures}
        }
        self.metrics.retain(versions, self.indexes.keys())
        for call in self.on_change:
            call()

    def open_indexes(self) -> list[tuple[str, Index]]:
        """Return the indexes that serve, by name."""
        return [(name, served.index) for name, served in self.indexes.items() if served.index is not None]

    def close(self) -> None:
        """Let go of the files."""
        for served in self.indexes.values():
            if served.index is not None:
                served.index.close()


async def _state(request: Request) -> State:  # async: FastAPI would take another function to a thread
    return cast(State, request.state.served)


Served = Annotated[State, Depends(_state)]
"""The parameter of a route that needs the state."""
