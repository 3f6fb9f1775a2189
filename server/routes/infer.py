"""The Open Inference Protocol v2: inference, with binary tensors and compression both ways."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from ..bodies import JSON, OCTETS, read_body
from ..errors import Problem
from ..front import JSON_HEADERS, OCTETS_HEADERS, Head, Headers, Hot, Reply, compressed
from ..schemas import REF, problems
from ..state import Served, ServedModel, State
from ..tensors import HEADER_LENGTH, InferAnswer, InferRequest, inference, read_infer, write_infer
from ..versions import Infer, Version
from .health import version_number

router = APIRouter(prefix="/v2/models", tags=["open inference protocol"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": {"$ref": REF.format(model=InferRequest.__name__)}},
            OCTETS: {
                "schema": {
                    "type": "string",
                    "format": "binary",
                    "description": "JSON of Inference-Header-Content-Length bytes, and the bytes of the tensors",
                }
            },
        },
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The output; with Inference-Header-Content-Length, so many bytes of JSON and then the tensor's",
        "content": {
            OCTETS: {"schema": {"type": "string", "format": "binary"}},
        },
    },
    **problems(400, 404, 413, 415, 422),
}
_HeaderLength = Annotated[
    str | None,
    Header(
        alias="Inference-Header-Content-Length",
        description="bytes of JSON at the start of the body; 0: the body is the tensor alone",
    ),
]


def publish(state: State) -> dict[str, Hot]:
    """Return the quick ways of the models as they are now."""
    table: dict[str, Hot] = {}
    for served in state.models.values():
        base = f"/v2/models/{served.name}"
        picks = {f"{base}/versions/{number}/infer": _always(v) for number, v in served.versions.items()}
        if served.version is not None:
            picks[f"{base}/infer"] = served.picker()
        table |= {path: Hot("POST", _ENDPOINT, _quick(pick), path) for path, pick in picks.items()}
    return table


@lru_cache(64)
def _binary_headers(json_bytes: int) -> Headers:
    return Headers(*OCTETS_HEADERS.pairs, (HEADER_LENGTH.encode(), b"%d" % json_bytes))


_ENDPOINT = "POST /v2/models/{name}/infer"


def _always(version: Version) -> Callable[[], Version]:
    return lambda: version


def _quick(pick: Callable[[], Version]) -> Callable[[Head, bytes, bytes], Reply | None]:
    def call(head: Head, query: bytes, body: bytes) -> Reply | None:
        if query:
            return None
        answer = pick().quick_infer(body, head.header_length)
        if answer is None:
            return None
        text, extra = compressed(answer.body, head.accept) if head.accept else (answer.body, ())
        if answer.json_bytes is None:
            return Reply(text, JSON_HEADERS, extra)
        return Reply(text, _binary_headers(answer.json_bytes), extra)

    return call


@router.post(
    "/{name}/infer",
    operation_id="model_infer",
    response_model=InferAnswer,
    responses=_ANSWERS,
    openapi_extra=_BODY,
)
async def infer(name: str, state: Served, request: Request, header_length: _HeaderLength = None) -> Response:
    """Run a model on tensors; any Content-Type, or none."""
    return await _infer(state.model(name), None, request, header_length)


@router.post(
    "/{name}/versions/{version}/infer",
    operation_id="version_infer",
    response_model=InferAnswer,
    responses=_ANSWERS,
    openapi_extra=_BODY,
)
async def version_infer(
    name: str, version: str, state: Served, request: Request, header_length: _HeaderLength = None
) -> Response:
    """Run a version of a model on tensors; any Content-Type, or none."""
    return await _infer(state.model(name), version, request, header_length)


async def _infer(
    served: ServedModel, number: str | None, request: Request, header_length: str | None
) -> Response:
    version = served.pick() if number is None else served.get(version_number(number))
    with version.counting_errors():
        length = _length(header_length)
        body = await read_body(request, version.reader.longest(JSON if length is None else OCTETS))
        start = perf_counter()
        plain = version.read_plain(
            body, length
        )  # in C: a large model's rows came no other way than a small one's
        asked = read_infer(body, length, version) if plain is None else inference(plain)
        parsed = perf_counter()
        y = await version.predict(asked.x)
        inferred = perf_counter()
        answer = write_infer(version, y, asked)
        version.stats.observe(len(y), start, parsed, inferred, perf_counter())
    return _response(answer, request.headers.get("accept-encoding", "").encode())


def _length(header_length: str | None) -> int | None:
    if header_length is None:
        return None
    if not (header_length.isascii() and header_length.isdecimal()) or len(header_length) > 12:
        raise Problem(400, "Inference-Header-Content-Length is not a number of bytes")
    return int(header_length)


def _response(answer: Infer, accept: bytes) -> Response:
    text, extra = compressed(answer.body, accept)
    headers = {name.decode(): value.decode() for name, value in extra}
    if answer.json_bytes is None:
        return Response(text, headers=headers, media_type=JSON)
    headers[HEADER_LENGTH] = str(answer.json_bytes)
    return Response(text, headers=headers, media_type=OCTETS)
