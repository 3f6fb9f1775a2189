"""The console, the API page and what they load: read into memory once, so that no path is ever made of a URL."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from ..completions import etag_matches

FOLDER = Path(__file__).parent.parent / "static"

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class _Page:
    body: bytes
    headers: dict[str, str]

    def answer(self, request: Request) -> Response:
        if etag_matches(request.headers.get("if-none-match", ""), self.headers["ETag"]):
            return Response(status_code=304, headers=self.headers)
        return Response(self.body, headers=self.headers)


def _read(folder: Path) -> dict[str, _Page]:
    pages: dict[str, _Page] = {}
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if path.suffix in _TYPES and path.is_file():
            body = path.read_bytes()
            pages[path.name] = _Page(
                body,
                {
                    "Content-Type": _TYPES[path.suffix],
                    "ETag": f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"',
                    "Cache-Control": "no-cache",  # ask each time, with the ETag: after an update nobody sees the old one
                    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
                    "Referrer-Policy": "no-referrer",
                },
            )
    return pages


def make_router(folder: Path = FOLDER) -> APIRouter:
    """Return the routes of the pages, with the files of ``folder`` as they are now."""
    pages = _read(folder)
    router = APIRouter(include_in_schema=False)

    def answer(name: str, request: Request) -> Response:
        if name not in pages:
            raise HTTPException(404)
        return pages[name].answer(request)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def console(request: Request) -> Response:
        return answer("console.html", request)

    @router.api_route("/docs", methods=["GET", "HEAD"])
    async def docs(request: Request) -> Response:
        return answer("docs.html", request)

    @router.api_route("/static/{name}", methods=["GET", "HEAD"])
    async def static(name: str, request: Request) -> Response:
        return answer(name, request)

    return router
