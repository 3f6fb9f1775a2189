"""The Python client of Mariana servers.

Example::

    from mariana_client import Mariana

    with Mariana("http://127.0.0.1:8080") as mariana:
        answer = mariana.predict("iris", [{"sepal_length": 5.1, "sepal_width": 3.5, ...}])
        print(answer.predictions[0].label)
        for completion in mariana.complete("cities", "sai"):
            print(completion.text, completion.score)

:class:`AsyncMariana` has the same methods, to be awaited. Every exception is a :class:`MarianaClientError`.
"""

from mariana_client._client import AsyncMariana, Mariana
from mariana_client._errors import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    FieldError,
    MarianaClientError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UnprocessableEntityError,
    UnsupportedMediaTypeError,
)
from mariana_client._types import (
    ClassPrediction,
    Completion,
    Completions,
    Explanation,
    Health,
    IndexInfo,
    ModelInfo,
    Predictions,
    Receipt,
    ValuePrediction,
)

__version__ = "0.1.0"

__all__ = [
    "APIConnectionError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncMariana",
    "AuthenticationError",
    "BadRequestError",
    "ClassPrediction",
    "Completion",
    "Completions",
    "ConflictError",
    "Explanation",
    "FieldError",
    "Health",
    "IndexInfo",
    "Mariana",
    "MarianaClientError",
    "ModelInfo",
    "NotFoundError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "Predictions",
    "RateLimitError",
    "Receipt",
    "ServerError",
    "UnprocessableEntityError",
    "UnsupportedMediaTypeError",
    "ValuePrediction",
]
