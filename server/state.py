"""What a server holds while it runs: the models and indexes of the store, loaded once at start."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, TypeVar, cast

from fastapi import Depends, Request

from mariana.autocomplete import Index, open_index
from mariana.errors import MarianaError, NotFoundError
from mariana.model import Model, load_model
from mariana.settings import Settings
from mariana.store import Store

_log = logging.getLogger("mariana.server")
_Thing = TypeVar("_Thing")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The versions of a model: those that serve, and why the others do not."""

    name: str
    versions: dict[int, Model]
    failures: dict[int, str]

    @property
    def version(self) -> int | None:
        """The version that serves when none is named: the highest that could be loaded."""
        return max(self.versions, default=None)

    def get(self, version: int | None = None) -> Model:
        """Return a version; NotFoundError when it does not serve."""
        model = self.versions.get(self.version or 0 if version is None else version)
        if model is None:
            raise NotFoundError("no such version")
        return model


@dataclass(frozen=True, slots=True)
class ServedIndex:
    """An index, or why it does not serve."""

    name: str
    index: Index | None
    failure: str | None


@dataclass(frozen=True, slots=True)
class State:
    """Everything that serves, by name."""

    models: dict[str, ServedModel] = field(default_factory=dict)
    indexes: dict[str, ServedIndex] = field(default_factory=dict)

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

    def open_indexes(self) -> list[tuple[str, Index]]:
        """Return the indexes that serve, by name."""
        return [(name, served.index) for name, served in self.indexes.items() if served.index is not None]

    def close(self) -> None:
        """Let go of the files."""
        for served in self.indexes.values():
            if served.index is not None:
                served.index.close()


def load_state(settings: Settings) -> State:
    """Load everything in the store. What cannot be loaded is logged and told by the API; it stops nothing else."""
    store = Store(settings.store)
    models: dict[str, ServedModel] = {}
    for name in _try(store.model_names, "list the models")[0] or []:
        served = ServedModel(name, {}, {})
        for version in _try(partial(store.model_versions, name), f"list the versions of {name}")[0] or []:
            model, failure = _try(
                partial(
                    load_model,
                    store.model_path(name, version),
                    isa=settings.isa,
                    precision=settings.precision,
                ),
                f"load model {name} {version}",
            )
            if model is not None:
                served.versions[version] = model
            else:
                served.failures[version] = _without_folder(failure, settings)
        models[name] = served
    indexes: dict[str, ServedIndex] = {}
    for name in _try(store.index_names, "list the indexes")[0] or []:
        index, failure = _try(
            partial(open_index, store.index_path(name), half_life=settings.learn_half_life),
            f"open index {name}",
        )
        indexes[name] = ServedIndex(
            name, index, None if index is not None else _without_folder(failure, settings)
        )
    if not models and not indexes:
        _log.warning(
            "the store %s is empty; fill it with mariana demo, mariana train or mariana index, then restart",
            settings.store,
        )
    return State(models, indexes)


def _try(call: Callable[[], _Thing], doing: str) -> tuple[_Thing | None, str]:
    try:
        return call(), ""
    except (MarianaError, OSError) as error:
        reason = " ".join(str(error).split())
        _log.error("cannot %s: %s", doing, reason)
        return None, reason


def _without_folder(reason: str, settings: Settings) -> str:
    """Return the reason with paths as they are inside the store."""
    return reason.replace(f"{settings.store}/", "")


async def _state(request: Request) -> State:  # async: FastAPI would take another function to a thread
    return cast(State, request.state.served)


Served = Annotated[State, Depends(_state)]
"""The parameter of a route that needs the state."""
