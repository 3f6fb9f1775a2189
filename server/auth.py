"""Who may write: whoever has an admin token.

A token is compared by its SHA-256 in constant time. Tokens are long random strings, not passwords that someone chose,
so a fast hash is the right one: it cannot be searched.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from pathlib import Path
from typing import Annotated, cast

from fastapi import Depends, Request

from mariana.settings import Settings

from .errors import Problem

_log = logging.getLogger("mariana.server")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE_MAX = 1 << 20

SECURITY: list[dict[str, list[str]]] = [{"admin": []}]
"""What OpenAPI says of an operation that needs a token."""


class Admin:
    """The tokens that let their bearer write.

    Args:
        settings: a token in plain text (``admin_token``), and a file of hashes (``admin_tokens_file``), one a line as
            ``sha256sum`` prints them, with what follows the hash and lines from ``#`` as comments. The file is read
            again whenever it has changed, so tokens come and go without a restart.
    """

    def __init__(self, settings: Settings) -> None:
        token = settings.admin_token
        self._own = () if token is None else (_hash(token.get_secret_value()),)
        self._file = settings.admin_tokens_file
        self._seen: tuple[int, ...] | None = None
        self._listed: tuple[str, ...] = ()

    def check(self, authorization: str) -> None:
        """Let a header Authorization pass.

        Raises:
            Problem: 403, no token is set at all; 401, it is missing or none of them.
        """
        hashes = self._own + self._from_file()
        if not hashes:
            raise Problem(403, "writing is off; set MARIANA_ADMIN_TOKEN on the server to allow it")
        scheme, _, token = authorization.partition(" ")
        given = _hash(token.strip()) if scheme.lower() == "bearer" else ""
        found = [hmac.compare_digest(given, known) for known in hashes]  # all of them: the time tells nothing
        if not any(found):
            raise Problem(
                401,
                "an admin token is needed: Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _from_file(self) -> tuple[str, ...]:
        if self._file is None:
            return ()
        try:
            status = self._file.stat()
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            if seen != self._seen:
                self._listed = _read(self._file)
                self._seen = seen
        except OSError as error:
            _log.error("cannot read the file of admin tokens: %s", error.strerror)
            self._listed, self._seen = (), None
        return self._listed


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _read(path: Path) -> tuple[str, ...]:
    with path.open("rb") as file:
        text = file.read(_FILE_MAX).decode("utf-8", "replace")
    first = (line.split(maxsplit=1)[0] for line in text.splitlines() if line.strip())
    return tuple(word for word in first if _SHA256.fullmatch(word))


async def _admin(request: Request) -> None:  # async: FastAPI would take another function to a thread
    cast(Admin, request.state.admin).check(request.headers.get("authorization", ""))


AdminOnly = Annotated[None, Depends(_admin)]
"""The parameter of a route that only an admin may call."""
