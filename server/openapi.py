"""The OpenAPI document beyond what FastAPI reads off signatures: the loaded models, and examples that work on them."""

from __future__ import annotations

import asyncio
from asyncio import sleep
from collections.abc import Callable, Iterator
from typing import Any

from pydantic_core import from_json, to_json

from .policy import Policy
from .routes import entries, selections, tensorflow
from .routes.predict import PredictRoute
from .schemas import ProblemDetails, component, examples
from .state import State
from .tensors import InferRequest
from .versions import INPUT, Version


class Description:
    """The document of what is served now.

    It is made when somebody asks for it after a change, the schemas of one version at a time, so that no other request
    waits for two hundred models; and kept as it goes over the wire.

    Args:
        make: FastAPI's document, which is always the same.
        predictions: the models' paths.
        state: what is served.
    """

    def __init__(self, make: Callable[[], dict[str, Any]], predictions: PredictRoute, state: State) -> None:
        self._make = make
        self._predictions = predictions
        self._state = state
        self._made = b""
        self._body = b""
        self._changes = 0
        self._lock = asyncio.Lock()

    def change(self) -> None:
        """Note that other things are served."""
        self._changes += 1
        self._body = b""

    def make(self) -> dict[str, Any]:
        """Return it; the caller may change it."""
        if not self._made:
            self._made = to_json(self._make())
        document: dict[str, Any] = from_json(self._made)
        _complete(document, self._predictions, self._state)
        return document

    async def body(self) -> bytes:
        """Return it as it goes over the wire."""
        async with self._lock:
            if self._body:
                return self._body
            changes = self._changes
            if not self._made:
                self._made = await asyncio.to_thread(lambda: to_json(self._make()))
            for version in self._predictions.versions():
                self._predictions.describe_one(version)
                await sleep(0)
            body = await _written(self.make())
            if changes == self._changes:
                self._body = body
            return body


async def _written(value: Any, depth: int = 3) -> bytes:
    """Return JSON; the objects down to a depth are written a member at a time, and others come in between."""
    if depth == 0 or not isinstance(value, dict):
        await sleep(0)
        return to_json(value)
    members = [to_json(name) + b":" + await _written(member, depth - 1) for name, member in value.items()]
    return b"{" + b",".join(members) + b"}"


def _complete(document: dict[str, Any], predictions: PredictRoute, state: State) -> None:
    """Add to FastAPI's document what only the state knows."""
    paths, schemas = predictions.describe()
    document["paths"].update(paths)
    for form in (ProblemDetails, InferRequest, Policy, *tensorflow.SCHEMAS):
        schemas |= component(form)
    schemas |= entries.SCHEMAS | selections.SCHEMAS
    document["components"]["schemas"].update(schemas)
    document["components"]["securitySchemes"] = {
        "admin": {"type": "http", "scheme": "bearer", "description": "an admin token"}
    }
    serving = [served for served in state.models.values() if served.version is not None]
    serving.sort(
        key=lambda served: not served.policy.labels
    )  # one with a label serves as an example of everything
    version = serving[0].get() if serving else None
    label = next(iter(serving[0].policy.labels), None) if serving else None
    index = next((name for name, served in state.indexes.items() if served.index is not None), None)
    for path, _, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                _name(parameter, path, version, label, index)
        if version is not None:
            _fill(operation, version)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give the operations of a document: path, method, operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _name(
    parameter: dict[str, Any], path: str, version: Version | None, label: str | None, index: str | None
) -> None:
    value: str | None = None
    if "/indexes/" in path:
        value = index
    elif version is not None:
        known = {"name": version.name, "version": str(version.number), "label": label}
        value = known.get(parameter["name"])
    if value is not None:
        parameter["example"] = value


def _fill(operation: dict[str, Any], version: Version) -> None:
    """Give an operation that takes any model an example for one that is loaded."""
    make = _EXAMPLES.get(operation["operationId"])
    if make is not None:
        operation["requestBody"]["content"]["application/json"]["examples"] = make(version)


def _row(version: Version) -> list[float | None]:
    row: list[float | None] = examples(version.model)["rows"]["value"]["instances"][0]
    return row


def _infer_examples(version: Version) -> dict[str, Any]:
    tensor = {"name": INPUT, "shape": [1, version.model.columns], "datatype": "FP32", "data": _row(version)}
    return {"tensor": {"summary": f"a row for {version.name}", "value": {"id": "1", "inputs": [tensor]}}}


def _tensorflow_examples(version: Version) -> dict[str, Any]:
    row = _row(version)
    return {
        "rows": {"summary": f"rows for {version.name}", "value": {"instances": [row]}},
        "columns": {
            "summary": f"the same in column form, for {version.name}",
            "value": {"inputs": {INPUT: [row]}},
        },
    }


_EXAMPLES: dict[str, Callable[[Version], dict[str, Any]]] = {
    "model_infer": _infer_examples,
    "version_infer": _infer_examples,
    "tensorflow_predict": _tensorflow_examples,
    "tensorflow_predict_version": _tensorflow_examples,
    "tensorflow_predict_label": _tensorflow_examples,
}
