"""Who is let in: how many requests at once, how many a second from one client, how large, and for how long one may dawdle."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
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


@dataclass(slots=True)
class Limits:
    """The settings of these names. They may change while the server runs, so whoever goes by one asks for it each time."""

    max_body: int
    max_binary_body: int
    max_values: int
    max_inflight: int
    max_connections: int
    rate_limit: float
    rate_burst: int
    head_timeout: float
    body_timeout: float
    idle_timeout: float
    answer_timeout: float

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Return the limits that settings tell."""
        return cls(**{limit.name: getattr(settings, limit.name) for limit in fields(cls)})

    def become(self, others: Limits) -> dict[str, float]:
        """Take other values; return those that are new."""
        before, after = asdict(self), asdict(others)
        changed = {name: after[name] for name in after if after[name] != before[name]}
        for name, value in changed.items():
            setattr(self, name, value)
        return changed


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
        rate: tokens a second, more than 0.
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
        self.rate, self.burst = rate, burst
        """They may be changed."""
        self._clock = clock
        memory = memoryview(bytearray(BUCKETS_BYTES)) if memory is None else memory
        self._clients = memory[: BUCKETS_BYTES // 2].cast("Q")
        self._full = memory[BUCKETS_BYTES // 2 :].cast("d")

    def wait(self, client: str) -> float:
        """Take a token of a client and return 0; or return the seconds until there is one."""
        now = self._clock()
        mark = hash(client) & 0xFFFF_FFFF_FFFF_FFFF
        place = self._place(mark)
        deep = self.burst / self.rate
        full = self._full[place] if self._clients[place] == mark else 0.0
        if full > now + deep:  # emptier than empty: it was deeper before
            full = self._full[place] = now + deep
        after = max(full, now) + 1 / self.rate
        missing = after - now - deep
        if missing > 1e-9 * deep:  # not what rounding brings
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

    __slots__ = ("_buckets", "_clients", "_limits", "_metrics", "passing")

    def __init__(self, limits: Limits, metrics: Metrics, clients: memoryview | None = None) -> None:
        self.passing = 0
        """Requests that this pass of the event loop has brought and answered at once."""
        self._limits = limits
        self._metrics = metrics
        self._clients = clients
        self._buckets: TokenBuckets | None = None

    @property
    def full(self) -> bool:
        """Whether as many requests are under way as may be."""
        return self._metrics.inflight + self.passing >= self._limits.max_inflight

    def refusal(self, client: str) -> Problem | None:
        """Return why a request is not let in, or None."""
        limits = self._limits
        if self._metrics.inflight + self.passing >= limits.max_inflight:
            self._metrics.reject("busy")
            return BUSY
        if limits.rate_limit > 0:
            buckets = self._buckets
            if buckets is None:
                buckets = self._buckets = TokenBuckets(
                    limits.rate_limit, limits.rate_burst, memory=self._clients
                )
            buckets.rate, buckets.burst = limits.rate_limit, limits.rate_burst
            seconds = buckets.wait(client_at(client))
            if seconds > 0:
                self._metrics.reject("rate")
                retry = str(int(seconds) + 1)
                return Problem(429, "more requests than this client may send", headers={"Retry-After": retry})
        return None
