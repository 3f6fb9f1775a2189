"""What the end-to-end tests share: the real server over a real socket, and a Chromium."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import uvicorn

from mariana.server import create_app
from mariana.server.protocol import Protocol
from mariana.settings import Settings


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[str]]:
    """`with serving(store) as url:` serves a store from a thread, on a port that was free."""
    return _serving


@contextmanager
def _serving(store: Path, **settings: object) -> Iterator[str]:
    """Serve a store from a thread, on a port that was free; yields the base URL."""
    app = create_app(Settings(store=store, **settings))
    config = uvicorn.Config(
        app, http=Protocol, port=0, log_level="warning", access_log=False, server_header=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended while starting"
            thread.join(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(
    scope="module"
)  # not the session: Playwright keeps an event loop running, and others want to run theirs
def chromium() -> Iterator:
    """A Playwright browser driving the machine's own Chromium; skips where something is missing."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: pip install playwright"
    )
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
