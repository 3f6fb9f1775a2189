"""JSON bodies of requests that are small documents: read within their limits, then checked against their schema."""

from __future__ import annotations

import json
from typing import Any, NoReturn, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from .bodies import JSON, media_type, read_body
from .errors import Problem, invalid
from .schemas import REF, component

_Document = TypeVar("_Document", bound=BaseModel)


async def read_document(request: Request, form: type[_Document], limit: int) -> _Document:
    """Return the body of a request.

    Args:
        request: its body is JSON, as ``bodies`` says.
        form: its schema.
        limit: bytes that it may have.

    Raises:
        Problem: 400 malformed, or of the wrong shape or type; 413 too long; 415 no JSON; 422 a value out of its range.
    """
    if media_type(request.headers.get("content-type", "")) != JSON:
        raise Problem(415, f"send {JSON}", headers={"Accept-Post": JSON})
    document = _load(await read_body(request, limit))
    try:
        return form.model_validate(document, strict=True)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False)) from None


def request_body(form: type[BaseModel], examples: dict[str, Any]) -> dict[str, Any]:
    """Return what OpenAPI says of a body that :func:`read_document` reads."""
    schema = {"$ref": REF.format(model=form.__name__)}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema, "examples": examples}}}}


def body_schemas(*forms: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI schemas that :func:`request_body` refers to."""
    return {name: schema for form in forms for name, schema in component(form).items()}


def _load(body: bytes) -> Any:
    try:
        return _decoder.decode(body.decode())
    except UnicodeDecodeError:
        raise Problem(400, "the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise Problem(400, f"the body is not JSON: see its character {error.pos}") from None
    except _RefusedError as error:
        raise Problem(400, str(error)) from None
    except RecursionError:
        raise Problem(400, "the body is nested too deeply") from None


class _RefusedError(Exception):
    pass


def _refuse(_constant: str) -> NoReturn:
    raise _RefusedError("NaN and Infinity are not JSON")


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else float(digits)  # which is what other languages make of them


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise _RefusedError("an object has the same name twice")
    return document


_decoder = json.JSONDecoder(parse_constant=_refuse, parse_int=_whole, object_pairs_hook=_unique)
