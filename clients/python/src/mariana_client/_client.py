"""The two clients: the same methods, one that waits and one to be awaited. Everything else is in `_protocol`."""

import asyncio
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from mariana_client import _protocol
from mariana_client._protocol import Call, Entry, Explain, Fuzzy, Rows
from mariana_client._types import Completions, Health, IndexInfo, ModelInfo, Predictions, Receipt

T = TypeVar("T")


class _Base:
    """What both clients know."""

    def __init__(self, base_url: str, api_key: str | None, timeout: float, max_retries: int) -> None:
        if timeout <= 0 or max_retries < 0:
            raise ValueError("timeout must be above 0 and max_retries not below")
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self.max_retries = max_retries
        self._headers = {"Accept": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def _request(self, call: Call) -> dict[str, Any]:
        """The arguments of the transport's `request`."""
        return {
            "method": call.method,
            "url": self.base_url + call.path,
            "params": call.params,
            "content": call.content,
            "headers": {**self._headers, **call.headers},
            "timeout": self.timeout,
        }


class Mariana(_Base):
    """A client that waits for its answers. Threads may share one.

    Args:
        base_url: Where the server is.
        api_key: Sent as a bearer token, where the server or a proxy before it asks for one.
        timeout: Seconds, for each try: to connect, and between two pieces of the answer.
        max_retries: Tries after the first, on broken connections and 408, 429, 502, 503, 504.
        http_client: Your own ``httpx2.Client`` (proxies, certificates, test transports); it stays yours to close.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        timeout: float = 10,
        max_retries: int = 2,
        http_client: httpx2.Client | None = None,
    ) -> None:
        super().__init__(base_url, api_key, timeout, max_retries)
        self._owned = http_client is None
        self._http = http_client or httpx2.Client()

    def predict(
        self, model: str, rows: Rows, version: int | None = None, *, explain: Explain = False
    ) -> Predictions:
        """Predict a batch.

        Args:
            model: The model's name.
            rows: Lists of numbers in the order of the features, mappings by feature name, or an array of shape
                (rows, features), which travels as float32. None, or NaN in an array, is a missing value.
            version: Pin a version; the highest otherwise.
            explain: Ask what each feature has to do with each answer: True, or a certain method.

        Raises:
            ValueError: The rows cannot be sent at all.
            MarianaClientError: See the tree in `mariana_client._errors`.
        """
        return self._call(_protocol.predict(model, rows, version, explain), _protocol.read_predictions)

    def complete(self, index: str, query: str, limit: int = 10, fuzzy: Fuzzy = "auto") -> Completions:
        """The best completions of what was typed so far, at most `limit` (1..100), best first."""
        return self._call(_protocol.complete(index, query, limit, fuzzy), _protocol.read_completions)

    def insert(self, index: str, entries: Iterable[Entry]) -> Receipt:
        """Insert entries, or replace whole those of the same text: all of them or none. Needs an admin token.

        Args:
            index: The index's name.
            entries: Mappings with ``text`` and, if wanted, ``score``, ``payload``, ``contexts`` and ``id``; or (text, score);
                or texts.

        Raises:
            MarianaClientError: See the tree in `mariana_client._errors`; ``errors`` says which entry is wrong.
        """
        return self._call(_protocol.insert(index, entries), _protocol.read_receipt)

    def delete(self, index: str, texts: Iterable[str] = (), *, ids: Iterable[str] = ()) -> Receipt:
        """Delete entries by their texts, or all names of documents by id: all of them or none. Needs an admin token.

        See :meth:`insert`.
        """
        return self._call(_protocol.delete(index, texts, ids), _protocol.read_receipt)

    def select(self, index: str, query: str, text: str) -> Receipt:
        """Tell what a person typed and then chose: the ranking learns from it, where the server allows it."""
        return self._call(_protocol.select(index, query, text), _protocol.read_receipt)

    def models(self) -> list[ModelInfo]:
        """The loaded models."""
        return self._call(Call("GET", "/v1/models"), _protocol.read_models)

    def indexes(self) -> list[IndexInfo]:
        """The loaded indexes."""
        return self._call(Call("GET", "/v1/indexes"), _protocol.read_indexes)

    def health(self) -> Health:
        """Is the server there, and has it loaded what it should? Asks once, without retries.

        Raises:
            APIConnectionError: It is not there.
        """
        live, ready = (self._send(Call("GET", f"/v2/health/{what}"), 0) for what in ("live", "ready"))
        return Health(live.is_success, ready.is_success)

    def _call(self, call: Call, reader: Callable[[Any], T]) -> T:
        return _protocol.read(self._send(call, self.max_retries), reader)

    def _send(self, call: Call, max_retries: int) -> httpx2.Response:
        tried = 0
        while True:
            result: httpx2.Response | httpx2.TransportError
            try:
                result = self._http.request(**self._request(call))
            except httpx2.TransportError as error:
                result = error
            tried += 1
            wait = _protocol.pause(tried, max_retries, result)
            if wait is not None:
                time.sleep(wait)
            elif isinstance(result, httpx2.Response):
                return result
            else:
                raise _protocol.connection_error(result, self.base_url, self.timeout) from result

    def close(self) -> None:
        """Close the connections."""
        if self._owned:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncMariana(_Base):
    """As :class:`Mariana`, to be awaited: the same arguments, methods and exceptions."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        timeout: float = 10,
        max_retries: int = 2,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        super().__init__(base_url, api_key, timeout, max_retries)
        self._owned = http_client is None
        self._http = http_client or httpx2.AsyncClient()

    async def predict(
        self, model: str, rows: Rows, version: int | None = None, *, explain: Explain = False
    ) -> Predictions:
        """See :meth:`Mariana.predict`."""
        return await self._call(_protocol.predict(model, rows, version, explain), _protocol.read_predictions)

    async def complete(self, index: str, query: str, limit: int = 10, fuzzy: Fuzzy = "auto") -> Completions:
        """See :meth:`Mariana.complete`."""
        return await self._call(_protocol.complete(index, query, limit, fuzzy), _protocol.read_completions)

    async def insert(self, index: str, entries: Iterable[Entry]) -> Receipt:
        """See :meth:`Mariana.insert`."""
        return await self._call(_protocol.insert(index, entries), _protocol.read_receipt)

    async def delete(self, index: str, texts: Iterable[str] = (), *, ids: Iterable[str] = ()) -> Receipt:
        """See :meth:`Mariana.delete`."""
        return await self._call(_protocol.delete(index, texts, ids), _protocol.read_receipt)

    async def select(self, index: str, query: str, text: str) -> Receipt:
        """See :meth:`Mariana.select`."""
        return await self._call(_protocol.select(index, query, text), _protocol.read_receipt)

    async def models(self) -> list[ModelInfo]:
        """The loaded models."""
        return await self._call(Call("GET", "/v1/models"), _protocol.read_models)

    async def indexes(self) -> list[IndexInfo]:
        """The loaded indexes."""
        return await self._call(Call("GET", "/v1/indexes"), _protocol.read_indexes)

    async def health(self) -> Health:
        """See :meth:`Mariana.health`."""
        live = await self._send(Call("GET", "/v2/health/live"), 0)
        ready = await self._send(Call("GET", "/v2/health/ready"), 0)
        return Health(live.is_success, ready.is_success)

    async def _call(self, call: Call, reader: Callable[[Any], T]) -> T:
        return _protocol.read(await self._send(call, self.max_retries), reader)

    async def _send(self, call: Call, max_retries: int) -> httpx2.Response:
        tried = 0
        while True:
            result: httpx2.Response | httpx2.TransportError
            try:
                result = await self._http.request(**self._request(call))
            except httpx2.TransportError as error:
                result = error
            tried += 1
            wait = _protocol.pause(tried, max_retries, result)
            if wait is not None:
                await asyncio.sleep(wait)
            elif isinstance(result, httpx2.Response):
                return result
            else:
                raise _protocol.connection_error(result, self.base_url, self.timeout) from result

    async def close(self) -> None:
        """Close the connections."""
        if self._owned:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
