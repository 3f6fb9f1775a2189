"""The head of a request read in C, against httptools (llhttp), the parser that decides whatever C declines."""

from __future__ import annotations

import httptools
from hypothesis import given
from hypothesis import strategies as st

from mariana._binding.http import JSON, OCTETS, UNTOLD, RequestReader

read = RequestReader().read


class Parsed:
    """What httptools finds: one whole request, or not."""

    def __init__(self, data: bytes) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.whole = 0
        self.parser = httptools.HttpRequestParser(self)
        self.error = False
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.error = True

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole += 1
        self.keep_alive = self.parser.should_keep_alive()


NAMES = st.sampled_from(
    [
        b"Host",
        b"content-length",
        b"Content-Length",
        b"Content-Type",
        b"Connection",
        b"Accept-Encoding",
        b"If-None-Match",
        b"X-Request-Id",
        b"Traceparent",
        b"X-Server-Timing",
        b"Inference-Header-Content-Length",
        b"Transfer-Encoding",
        b"Content-Encoding",
        b"Expect",
        b"Upgrade",
        b"Origin",
        b"X y",
        b"",
        b"User-Agent",
    ]
)
VALUES = st.sampled_from(
    [
        b"application/json",
        b"application/octet-stream",
        b"application/json; charset=utf-8",
        b"text/plain",
        b"keep-alive",
        b"Keep-Alive",
        b"close",
        b"chunked",
        b"gzip",
        b"100-continue",
        b"0",
        b"1",
        b"3",
        b"3 ",
        b"+3",
        b"3, 3",
        b"",
        b'"tag"',
        b"a\tb",
        b"\x80\xff",
        b"\x01",
    ]
) | st.binary(max_size=6)
LINES = st.tuples(
    NAMES,
    st.sampled_from([b": ", b":", b" : ", b":\t", b""]),
    VALUES,
    st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r"]),
)
REQUESTS = st.builds(
    lambda method, target, version, lines, end, body: (
        method + b" " + target + version + b"".join(b"".join(line) for line in lines) + end + body
    ),
    st.sampled_from([b"GET", b"POST", b"PUT", b"get"]),
    st.sampled_from(
        [b"/a", b"/a?b=c", b"/a?b?c", b"/", b"/%20", b"*", b"http://x/a", b"/a#b", b"/\x80", b""]
    ),
    st.sampled_from([b" HTTP/1.1\r\n"] * 6 + [b" HTTP/1.0\r\n", b"\r\n", b"  HTTP/1.1\r\n"]),
    st.lists(LINES, max_size=5),
    st.sampled_from([b"\r\n"] * 6 + [b"", b"\n", b"\r\n\r\n"]),
    st.sampled_from([b"", b"x", b"xyz", b"3\r\nxyz\r\n0\r\n\r\n"]),
)


def check(data: bytes) -> bool:
    """Whether C takes the bytes; then httptools must find the same request in them."""
    found = read(data)
    if found is None:
        return False
    parsed = Parsed(data)
    assert (parsed.error, parsed.whole, parsed.keep_alive) == (False, 1, True)
    assert found.body == parsed.body
    path, _, query = parsed.url.partition(b"?")
    assert found.route == parsed.parser.get_method() + b" " + path
    assert found.query == query
    given_headers = dict(parsed.headers)
    kind = given_headers.get(b"content-type", b"")
    assert found.kind == (UNTOLD if not kind else OCTETS if b"octet" in kind else JSON)
    fields = found.fields
    told = (
        given_headers.get(b"accept-encoding", b""),
        given_headers.get(b"if-none-match", b""),
        given_headers.get(b"x-request-id", b""),
        given_headers.get(b"traceparent", b""),
        b"x-server-timing" in given_headers,
        int(given_headers[b"inference-header-content-length"])
        if b"inference-header-content-length" in given_headers
        else None,
    )
    assert (told == (b"", b"", b"", b"", False, None)) if fields is None else (tuple(fields) == told)
    return True


@given(REQUESTS)
def test_what_is_taken_is_what_the_parser_finds(data: bytes) -> None:
    check(data)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=3), st.binary(max_size=20))
def test_well_formed_requests(lines: list[tuple[bytes, bytes]], body: bytes) -> None:
    own = b"".join(b"%b: %b\r\n" % line for line in lines)
    check(b"POST /a?b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (own, len(body), body))


def test_the_usual_ones_are_taken() -> None:
    for head, body in (
        (b"POST /v1/models/a/predict HTTP/1.1\r\nHost: x\r\nUser-Agent: y\r\nAccept: */*\r\n", b"{}"),
        (b"GET /v1/indexes/a/complete?q=sa HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n", b""),
    ):
        length = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body) if body else b""
        assert check(head + length + b"\r\n" + body)
        assert not check(head + length + b"\r\n" + body + b"x")
