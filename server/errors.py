"""One family of errors, one handler, one body: RFC 9457 problem details.

A body is under 1 kB and holds nothing of the input: sentences of ours, places, counts, and names out of the store.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import NamedTuple, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mariana.errors import (
    FileFormatError,
    InvalidInputError,
    MarianaError,
    NotFoundError,
    OutOfRangeError,
    StoreError,
)

MEDIA_TYPE = "application/problem+json"
BODY_MAX = 1000
"""Bytes of a body; as many ``errors`` are told as fit."""

_OUT_OF_RANGE = frozenset(
    {
        "finite_number",
        "greater_than",
        "greater_than_equal",
        "less_than",
        "less_than_equal",
        "literal_error",
        "string_too_long",
        "string_too_short",
    }
)
"""pydantic's error types that mean: right type, but a value that is not allowed."""

_log = logging.getLogger("mariana.server")


class Fault(NamedTuple):
    """One thing that is wrong with the input: where (JSON pointer), and what."""

    pointer: str
    detail: str


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """An answer that is not the one that was asked for."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Iterable[Fault] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.members = dict(members or {})
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """Return the answer that tells it."""
        document: dict[str, object] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "error": self.detail,  # what clients of the Open Inference Protocol and of TensorFlow Serving read
            **self.members,
        }
        told: list[dict[str, str]] = []
        body = _encode({**document, "errors": told})
        for fault in self.errors:
            told.append(fault._asdict())
            longer = _encode({**document, "errors": told})
            if len(longer) > BODY_MAX:
                break
            body = longer
        return Response(body, self.status, self.headers, MEDIA_TYPE)


def _encode(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def pointer(*parts: object) -> str:
    """Return a JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def invalid(details: list[ErrorDetails], *, skip: int = 0) -> Problem:
    """Return the problem that pydantic's errors tell, in words of ours.

    Args:
        details: of ``ValidationError.errors(include_input=False)``.
        skip: how many leading parts of each place are not the client's business.
    """
    faults = [Fault(pointer(*detail["loc"][skip:]), _sentence(detail)) for detail in details]
    status = 422 if all(detail["type"] in _OUT_OF_RANGE for detail in details) else 400
    first = faults[0]
    return Problem(
        status, f"{first.pointer}: {first.detail}" if first.pointer else first.detail, errors=faults
    )


_SENTENCES = {
    "missing": "is missing",
    "float_type": "expected a number",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a whole number",
    "int_from_float": "expected a whole number",
    "finite_number": "expected a finite number, not too large for its type",
    "list_type": "expected an array",
    "string_type": "expected a string",
    "string_too_long": "the string is too long; /openapi.json says how long it may be",
    "string_too_short": "expected a string that is not empty",
    "string_unicode": "expected a string without half a surrogate pair",
    "extra_forbidden": "is not known here",
    "dict_type": "expected an object",
    "model_type": "expected an object",
}


def _sentence(detail: ErrorDetails) -> str:
    """Return what is wrong, in words that hold nothing of the input."""
    wanted = detail.get("ctx", {})
    match detail["type"]:
        case "too_short" | "too_long":
            least, most = wanted.get("min_length"), wanted.get("max_length")  # a row has both: its width
            bound = f"{least} items" if most is None else f"{most} items at most"
            return f"expected {bound}, found {wanted['actual_length']}"
        case "greater_than_equal":
            return f"expected at least {wanted['ge']:g}"
        case "less_than_equal":
            return f"expected at most {wanted['le']:g}"
        case "literal_error":
            return f"expected one of {wanted['expected']}"
        case kind:
            return _SENTENCES.get(kind, "is not as the schema says; see /openapi.json")


_HTTP_SENTENCES = {
    404: "there is nothing here; /openapi.json lists what there is",
    405: "this method is not allowed here; the header Allow names those that are",
}


def _problem(error: Exception) -> Problem:
    match error:
        case Problem():
            problem = error
        case RequestValidationError():
            problem = invalid(cast(list[ErrorDetails], error.errors()), skip=1)
        case InvalidInputError():
            where = error.pointer
            problem = Problem(
                422 if isinstance(error, OutOfRangeError) else 400,
                f"{where}: {error}" if where else str(error),
                errors=[Fault(*fault) for fault in error.faults]
                or ([Fault(where, str(error))] if where else []),
            )
        case FileFormatError():
            problem = Problem(503, "a file of the store is damaged; the server's log names it")
        case StoreError():
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                problem = Problem(507, "the disk is full; nothing was changed")
            else:
                problem = Problem(503, "the store cannot be written now", headers={"Retry-After": "5"})
        case NotFoundError():
            problem = Problem(
                404, "no such model, version or index; GET /v1/models and /v1/indexes list them"
            )
        case HTTPException():
            status = error.status_code
            detail = _HTTP_SENTENCES.get(status, HTTPStatus(status).phrase)
            problem = Problem(status, detail, headers=error.headers)
        case ClientDisconnect():
            problem = Problem(400, "the connection ended before the body did")
        case _:
            problem = Problem(500, "an error of the server; its log has the particulars")
    return problem


def status_of(error: Exception) -> int:
    """Return the status that an error is answered with."""
    return _problem(error).status


async def _handle(_request: Request, error: Exception) -> Response:
    problem = _problem(error)
    if isinstance(error, StoreError):
        _log.error("%s", error)  # of the disk, not of the program: where it came from helps nobody
    elif problem.status >= 500 and not isinstance(error, Problem):
        _log.error("internal error", exc_info=error)
    return problem.response()


def install(app: FastAPI) -> None:
    """Let every error of ``app`` be answered here."""
    for kind in (Problem, RequestValidationError, MarianaError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _handle)
