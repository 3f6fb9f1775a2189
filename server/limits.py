"""Who is let in: how many requests at once, how many a second from one client, and for how long one may dawdle."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from functools import lru_cache

from mariana.settings import Settings

from .errors import Problem
from .metrics import Metrics

CLIENTS = 10_000
"""Clients whose buckets are remembered; beyond that the fullest are forgotten, which costs nobody anything."""

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

    Args:
        rate: tokens a second; 0 lets everybody in.
        burst: tokens of a full bucket.
        clock: seconds, for tests.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._burst = float(burst)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait(self, client: str) -> float:
        """Take a token of a client and return 0; or return the seconds until there is one."""
        now = self._clock()
        tokens, then = self._buckets.get(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self.rate)
        if tokens < 1:
            self._buckets[client] = (tokens, now)
            return (1 - tokens) / self.rate
        if len(self._buckets) >= CLIENTS and client not in self._buckets:
            self._forget(now)
        self._buckets[client] = (tokens - 1, now)
        return 0.0

    def _forget(self, now: float) -> None:
        def fill(client: str) -> float:
            tokens, then = self._buckets[client]
            return tokens + (now - then) * self.rate

        for client in sorted(self._buckets, key=fill, reverse=True)[: CLIENTS // 2]:
            del self._buckets[client]


class Gate:
    """Lets requests in, or says why not.

    A request counts from when all of its body is there to its answer, so that a slow client holds nothing.
    """

    __slots__ = ("_buckets", "_metrics", "limit", "passing")

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.limit = settings.max_inflight
        self.passing = 0
        """Requests that this pass of the event loop has brought and answered at once."""
        self._metrics = metrics
        self._buckets = TokenBuckets(settings.rate_limit, settings.rate_burst)

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
