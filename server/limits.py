"""Who is let in: how many requests at once, how many a second from one client, and for how long one may dawdle."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from functools import lru_cache

from mariana.settings import Settings

from .errors import Problem
from .metrics import Metrics

CLIENTS = 16_384
"""Clients whose buckets are remembered; beyond that the fullest are forgotten, which costs nobody anything."""

_WAYS = 8
"""Places where a client's bucket may be: the fullest of so many makes room."""

_CELL_BYTES = 16
BUCKETS_BYTES = CLIENTS * _CELL_BYTES
"""Of memory for all buckets."""

BUSY = Problem(503, "the server is busy; try again in a moment", headers={"Retry-After": "1"})
FULL = Problem(503, "too many connections; try again in a moment", headers={"Retry-After": "1"})


@lru_cache(4096)
def client_at(address: str) -> str:
    """Return who is at an address: itself, or of one of IPv6 the network (/64), of which a person has all addresses."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    mapped = found.ipv4_mapped
    return str(ipaddress.ip_network((int(found), 64), strict=False)) if mapped is None else str(mapped)


class TokenBuckets:
    """One bucket a client: it fills with ``rate`` tokens a second up to ``burst``, and a request takes one.

    A bucket is the moment at which it will be full (the generic cell rate algorithm, ITU-T I.371), so that one store
    changes it: workers share the buckets without a lock. Two that serve one client in the same microsecond may let in
    one request too many.

    Args:
        rate: tokens a second; 0 lets everybody in.
        burst: tokens of a full bucket.
        clock: seconds, for tests.
        memory: ``BUCKETS_BYTES`` that workers share, zeros at first; None: this process alone has them. Workers
            know a client by ``hash``, which is the same in all that were forked from one process.
    """

    def __init__(
        self,
        rate: float,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
        memory: memoryview | None = None,
    ) -> None:
        self.rate = rate
        self._clock = clock
        if rate > 0:
            memory = memoryview(bytearray(BUCKETS_BYTES)) if memory is None else memory
            self._clients = memory[: BUCKETS_BYTES // 2].cast("Q")
            self._full = memory[BUCKETS_BYTES // 2 :].cast("d")
            self._step = 1 / rate
            self._deep = burst / rate

    def wait(self, client: str) -> float:
        """Take a token of a client and return 0; or return the seconds until there is one."""
        now = self._clock()
        mark = hash(client) & 0xFFFF_FFFF_FFFF_FFFF
        place = self._place(mark)
        full = self._full[place] if self._clients[place] == mark else 0.0
        after = max(full, now) + self._step
        missing = after - now - self._deep
        if missing > 1e-9 * self._deep:  # not what rounding brings
            return missing
        self._clients[place] = mark
        self._full[place] = after
        return 0.0

    def _place(self, mark: int) -> int:
        """Return where a client's bucket is, or may be: where the fullest of some is."""
        first = mark % (CLIENTS // _WAYS) * _WAYS
        places = range(first, first + _WAYS)
        for place in places:
            if self._clients[place] == mark:
                return place
        return min(places, key=self._full.__getitem__)


class Gate:
    """Lets requests in, or says why not.

    A request counts from when all of its body is there to its answer, so that a slow client holds nothing.
    """

    __slots__ = ("_buckets", "_metrics", "limit", "passing")

    def __init__(self, settings: Settings, metrics: Metrics, clients: memoryview | None = None) -> None:
        self.limit = settings.max_inflight
        self.passing = 0
        """Requests that this pass of the event loop has brought and answered at once."""
        self._metrics = metrics
        self._buckets = TokenBuckets(settings.rate_limit, settings.rate_burst, memory=clients)

    def refusal(self, client: str) -> Problem | None:
        """Return why a request is not let in, or None."""
        if self._metrics.inflight + self.passing >= self.limit:
            self._metrics.reject("busy")
            return BUSY
        if self._buckets.rate > 0:
            seconds = self._buckets.wait(client_at(client))
            if seconds > 0:
                self._metrics.reject("rate")
                retry = str(int(seconds) + 1)
                return Problem(429, "more requests than this client may send", headers={"Retry-After": retry})
        return None
