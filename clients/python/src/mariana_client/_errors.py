"""The exceptions of the client.

::

    MarianaClientError
     +-- APIConnectionError             the server was not reached, or the connection broke
     |    +-- APITimeoutError           it did not answer in time
     +-- APIResponseError               what answered is not a Mariana server
     +-- APIStatusError                 the server refused; its problem+json is read into the attributes
          +-- BadRequestError           400 malformed, or of the wrong shape or type
          +-- AuthenticationError       401
          +-- PermissionDeniedError     403
          +-- NotFoundError             404 no such model, version or index
          +-- ConflictError             409
          +-- PayloadTooLargeError      413
          +-- UnsupportedMediaTypeError 415
          +-- UnprocessableEntityError  422 a value out of its range
          +-- RateLimitError            429
          +-- ServerError               500 and above
"""

import json
from dataclasses import dataclass
from typing import ClassVar

import httpx2


class MarianaClientError(Exception):
    """Any failure of the client."""


class APIConnectionError(MarianaClientError):
    """The server was not reached, or the connection broke."""


class APITimeoutError(APIConnectionError):
    """The server did not answer in time."""


class APIResponseError(MarianaClientError):
    """What answered does not speak as a Mariana server does."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with a request: a JSON pointer into its body, and what is wrong there."""

    pointer: str
    detail: str


class APIStatusError(MarianaClientError):
    """The server answered with an error.

    Attributes:
        status_code: The HTTP status.
        title: Short and the same for all errors of a kind.
        detail: What is wrong, and what to do.
        errors: Each thing wrong with the request, by pointer.
        response: The whole answer.
    """

    _by_status: ClassVar[dict[int, type["APIStatusError"]]] = {}

    def __init_subclass__(cls, status: int = 0) -> None:
        APIStatusError._by_status[status] = cls

    def __init__(self, response: httpx2.Response) -> None:
        try:
            problem = response.json()
        except (json.JSONDecodeError, UnicodeDecodeError):
            problem = None
        if not isinstance(problem, dict):  # a proxy's HTML page, say
            problem = {}
        self.response = response
        self.status_code = response.status_code
        self.title = str(problem.get("title") or response.reason_phrase)
        self.detail = str(problem.get("detail") or self.title)
        self.errors = tuple(
            FieldError(str(error.get("pointer", "")), str(error.get("detail", "")))
            for error in problem.get("errors") or ()
            if isinstance(error, dict)
        )
        places = "".join(f"; {error.pointer}: {error.detail}" for error in self.errors)
        super().__init__(f"{self.status_code} {self.detail}{places}")

    @staticmethod
    def from_response(response: httpx2.Response) -> "APIStatusError":
        """The exception for an answer whose status is not a success."""
        fallback = ServerError if response.status_code >= 500 else APIStatusError
        return APIStatusError._by_status.get(response.status_code, fallback)(response)


class BadRequestError(APIStatusError, status=400):
    """Malformed, or of the wrong shape or type."""


class AuthenticationError(APIStatusError, status=401):
    """The key is missing or wrong."""


class PermissionDeniedError(APIStatusError, status=403):
    """The key does not permit this, or the server permits it to nobody."""


class NotFoundError(APIStatusError, status=404):
    """No such model, version or index."""


class ConflictError(APIStatusError, status=409):
    """The server's state does not allow this now."""


class PayloadTooLargeError(APIStatusError, status=413):
    """More than the server takes in one request: send smaller batches."""


class UnsupportedMediaTypeError(APIStatusError, status=415):
    """The server does not read this content type."""


class UnprocessableEntityError(APIStatusError, status=422):
    """A value is out of its range."""


class RateLimitError(APIStatusError, status=429):
    """Too many requests at once; retries did not help."""


class ServerError(APIStatusError, status=500):
    """The server failed, or something between did: 500 and above."""
