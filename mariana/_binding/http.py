"""The head of a request, read without a Python object for each header."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from mariana._binding import ffi, lib

_read = lib.mrn_http_read  # looked up once: these few count in a request of some microseconds

_TIMING = 1 << int(lib.MRN_HTTP_TIMING)

HEAD_MAX = int(lib.MRN_HTTP_HEAD_MAX)
"""Bytes of a request's line and headers."""

HEADERS_MAX = int(lib.MRN_HTTP_HEADERS_MAX)

UNTOLD, JSON, OCTETS = int(lib.MRN_HTTP_UNTOLD), int(lib.MRN_HTTP_JSON), int(lib.MRN_HTTP_OCTETS)
"""What a body is, by Content-Type; the first: none is given."""


class Fields(NamedTuple):
    """Headers that few requests have; empty where it is not there."""

    accept: bytes
    """Accept-Encoding"""
    etag: bytes
    """If-None-Match"""
    identity: bytes
    """X-Request-Id"""
    trace: bytes
    """traceparent"""
    timing: bool
    """whether X-Server-Timing is there"""
    header_length: int | None
    """Inference-Header-Content-Length"""


@lru_cache(256)
def _bare(header_length: int | None) -> Fields:
    return Fields(b"", b"", b"", b"", False, header_length)


class Request(NamedTuple):
    """A plain request, whole."""

    route: bytes
    """method, space, path"""
    query: bytes
    kind: int
    """of UNTOLD, JSON, OCTETS"""
    body: bytes
    fields: Fields | None
    """None: it has none of them"""


class RequestReader:
    """Reads requests that are plain and whole; one call at a time."""

    __slots__ = ("_request",)

    def __init__(self) -> None:
        self._request = ffi.new("mrn_http_request *")

    def read(self, data: bytes) -> Request | None:
        """Return the request that ``data`` is; None for anything else, right or wrong: a full parser decides."""
        request = self._request
        if _read(data, len(data), request) != 0:
            return None
        route, target = request.route, request.target
        return Request(
            data[:route],
            data[route + 1 : target],
            request.kind,
            data[request.body :],
            self._fields(data) if request.fields else None,
        )

    def _fields(self, data: bytes) -> Fields:
        request = self._request
        length = request.header_length
        header_length = None if length < 0 else length
        present = request.present
        if not present:  # a binary request of a client that asks for nothing more
            return _bare(header_length)
        at, size = request.field, request.field_bytes
        accept, etag, identity, trace = [
            data[at[i] : at[i] + size[i]] if present >> i & 1 else b"" for i in range(4)
        ]
        return Fields(accept, etag, identity, trace, bool(present & _TIMING), header_length)
