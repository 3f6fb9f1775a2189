"""What goes over the wire and when to try again: all that the two clients share, without input or output."""

import email.utils
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar
from urllib.parse import quote

import httpx2

from mariana_client._errors import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    MarianaClientError,
)
from mariana_client._types import Completions, IndexInfo, ModelInfo, Predictions, Receipt

if TYPE_CHECKING:
    import numpy as np

Rows: TypeAlias = "Sequence[Sequence[float | None]] | Sequence[Mapping[str, Any]] | np.ndarray[Any, Any]"
Entry: TypeAlias = "str | tuple[str, float] | Mapping[str, Any]"
Fuzzy: TypeAlias = Literal["auto", 0, 1, 2]
Explain: TypeAlias = "bool | Literal['leave_one_out', 'gradient_x_input', 'integrated_gradients']"
T = TypeVar("T")

RETRIED = frozenset({408, 429, 502, 503, 504})
FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0  # seconds between tries: a random part of 0.25, 0.5, 1, ... up to 8
LONGEST_RETRY_AFTER = 60.0  # a server that asks for a longer pause is believed: the error is raised at once


@dataclass(frozen=True, slots=True)
class Call:
    """One request, and nothing about how it is sent. Every call here may be repeated safely."""

    method: str
    path: str
    params: Mapping[str, str] | None = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def predict(model: str, rows: Rows, version: int | None, explain: Explain) -> Call:
    """Arrays go as float32 bytes, all else as JSON."""
    path = f"/v1/models/{quote(model, safe='')}"
    if version is not None:
        path += f"/versions/{version}"
    content, media_type = _encode(rows)
    params = {"explain": explain if isinstance(explain, str) else "true"} if explain else None
    return Call("POST", f"{path}/predict", params, content, {"Content-Type": media_type})


def _encode(rows: Rows) -> tuple[bytes, str]:
    numpy = sys.modules.get("numpy")  # without it loaded, nobody holds an array
    if numpy is not None and isinstance(rows, numpy.ndarray):
        if rows.ndim != 2:
            raise ValueError(f"expected an array of shape (rows, features), got {rows.shape}")
        return numpy.ascontiguousarray(rows, dtype="<f4").tobytes(), "application/octet-stream"
    try:
        body = json.dumps({"instances": rows}, allow_nan=False, default=_plain)
    except ValueError as error:
        raise ValueError(
            f"these rows cannot be sent as JSON (for a missing value use None): {error}"
        ) from None
    return body.encode(), "application/json"


def _plain(value: Any) -> Any:
    """NumPy's scalars, and arrays within lists, as Python's own."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"JSON cannot carry a {type(value).__name__}")


def complete(index: str, query: str, limit: int, fuzzy: Fuzzy) -> Call:
    """The query as the person typed it: the server folds it."""
    params = {"q": query, "limit": str(limit), "fuzzy": str(fuzzy)}
    return Call("GET", f"/v1/indexes/{quote(index, safe='')}/complete", params)


def insert(index: str, entries: Iterable[Entry]) -> Call:
    """Texts alone and pairs become the mappings that the server takes."""
    return _change("POST", index, "entries", {"entries": [_entry(entry) for entry in entries]})


def _entry(entry: Entry) -> Mapping[str, Any]:
    if isinstance(entry, str):
        return {"text": entry}
    if isinstance(entry, Mapping):
        return entry
    text, score = entry
    return {"text": text, "score": score}


def delete(index: str, texts: Iterable[str], ids: Iterable[str] = ()) -> Call:
    """By the texts as they are shown, or by the ids of their documents."""
    if isinstance(texts, str) or isinstance(ids, str):
        raise TypeError("texts and ids must be several strings: put the one into a list")
    wanted = {"texts": list(texts), "ids": list(ids)}
    return _change("DELETE", index, "entries", {name: some for name, some in wanted.items() if some})


def select(index: str, query: str, text: str) -> Call:
    """What was typed, and what was chosen."""
    return _change("POST", index, "selections", {"query": query, "text": text})


def _change(method: str, index: str, what: str, document: Mapping[str, Any]) -> Call:
    content = json.dumps(document, allow_nan=False, default=_plain).encode()
    path = f"/v1/indexes/{quote(index, safe='')}/{what}"
    return Call(method, path, content=content, headers={"Content-Type": "application/json"})


def read_models(answer: Any) -> list[ModelInfo]:
    """As the server lists them."""
    return [ModelInfo.from_json(row) for row in answer["models"]]


def read_indexes(answer: Any) -> list[IndexInfo]:
    """As the server lists them."""
    return [IndexInfo.from_json(row) for row in answer["indexes"]]


read_predictions = Predictions.from_json
read_completions = Completions.from_json
read_receipt = Receipt.from_json


def read(response: httpx2.Response, reader: Callable[[Any], T]) -> T:
    """The answer as `reader` makes it.

    Raises:
        APIStatusError: The status is not a success.
        APIResponseError: The body is not what a Mariana server answers.
    """
    if not response.is_success:
        raise APIStatusError.from_response(response)
    try:
        return reader(response.json())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise APIResponseError(f"{response.url} does not answer as a Mariana server: {error!r}") from error


def connection_error(error: httpx2.TransportError, base_url: str, timeout: float) -> MarianaClientError:
    """Our exception for one of the transport's."""
    if isinstance(error, httpx2.TimeoutException):
        return APITimeoutError(f"{base_url} did not answer within {timeout:g} s")
    return APIConnectionError(f"{base_url} cannot be reached: {error}")


def pause(tried: int, max_retries: int, result: httpx2.Response | httpx2.TransportError) -> float | None:
    """Seconds to wait before the next try, or None: `result` is final. `tried` counts the tries so far.

    Full jitter (Brooker, "Exponential Backoff And Jitter", 2015), after what Retry-After asks for. A time-out is
    final: the server is at work on the request, or overloaded, and another would not help.
    """
    after = 0.0
    if isinstance(result, httpx2.Response):
        if result.status_code not in RETRIED:
            return None
        after = retry_after(result.headers.get("Retry-After", ""))
    elif isinstance(result, httpx2.TimeoutException):
        return None
    if tried > max_retries or after > LONGEST_RETRY_AFTER:
        return None
    jitter = random.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tried - 1)))  # noqa: S311 -- spreads load, guards nothing
    return after + jitter


def retry_after(value: str) -> float:
    """Seconds, from seconds or a date; 0 for anything else."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
