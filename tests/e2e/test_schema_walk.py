"""schemathesis walks the OpenAPI document: no answer that it does not tell of, and no 5xx."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.http_peers import present

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
TOKEN = "a token for tests"


@pytest.mark.slow
@pytest.mark.optional
def test_the_document_tells_every_answer(serving, tiny_store: Path, tmp_path: Path) -> None:
    python = present("schemathesis")
    if python is None:
        pytest.skip("schemathesis is not installed (its pins conflict with ours): make conformance does that")
    store = tmp_path / "store"
    shutil.copytree(tiny_store, store)  # it writes into the indexes
    (store / "models/tiny/policy.json").write_text('{"labels": {"stable": 2}}', encoding="utf-8")
    command = [
        python.with_name("schemathesis"),
        "run",
        "--phases=examples,coverage,fuzzing",
        "--max-examples=5",
        "--generation-deterministic",
        "--continue-on-failure",
        f"--checks={','.join(CHECKS)}",
        f"--header=Authorization: Bearer {TOKEN}",
        "--no-color",
    ]
    with serving(store, admin_token=TOKEN, learn=True, idle_timeout=60) as url:
        done = subprocess.run(
            [*command, f"{url}/openapi.json"],
            cwd=tmp_path,  # it keeps its findings in the working folder
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-20_000:]
    generated, passed = re.search(r"(\d+) generated, (\d+) passed", done.stdout).groups()
    assert generated == passed
    assert int(passed) > 500
