"""HTTP/1.1 as uvicorn reads it, with errors of ours: what is no HTTP never reaches the application."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .errors import Problem


class Protocol(HttpToolsProtocol):
    """One connection."""

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no request, then close."""
        del msg  # plain text
        answer = Problem(400, "this is not a request of HTTP/1.1").response()
        answer.headers["Connection"] = "close"
        head = [b"HTTP/1.1 400 Bad Request", *(b"%s: %s" % header for header in answer.raw_headers)]
        self.transport.write(b"\r\n".join([*head, b"", bytes(answer.body)]))
        self.transport.close()
