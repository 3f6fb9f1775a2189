"""Bad input at the command line: one clear line on stderr, exit 1 or 2, no stack trace, nothing half-written.

The other doors have their own walks: HTTP in test_server_errors.py, Python in test_model.py and test_autocomplete.py,
files in test_format.py and test_autocomplete.py.
"""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CSV = "a,b,y\n1,2,u\n3,4,v\n5,6,u\n7,8,v\n9,1,u\n2,3,v\n4,5,u\n6,7,v\n8,9,u\n1,3,v\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with one bad file of each kind."""
    files: dict[str, str | bytes] = {
        "good.csv": CSV,
        "empty.csv": "",
        "header.csv": "a,b,y\n",
        "one_class.csv": "a,b,y\n" + "1,2,u\n" * 12,
        "too_large.csv": CSV + "1e39,2,u\n",
        "ragged.csv": CSV + "1,2,3,4,5\n",
        "twice.csv": "a,a,y\n1,2,u\n3,4,v\n",
        "binary.csv": bytes(range(256)) * 8,
        "broken.csv.gz": gzip.compress(CSV.encode())[:-9],
        "broken.npz": b"PK\x03\x04 not an archive",
        "model.safetensors": b"\xff" * 64,
        "empty.txt": "",
        "bad.tsv": "text\tscore\nSaigon\tmany\nSaint-Denis\t-1\n",
        "bad.jsonl": '{"text": "a", "score": 1}\n{"text": 3}\n[\n',
        "latin1.txt": "caf\xe9\n".encode("latin-1"),
    }
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
    np.savez(tmp_path / "wrong_names.npz", a=np.zeros(3), b=np.zeros(3))
    np.savez(tmp_path / "infinite.npz", x=np.array([[1.0], [np.inf], [2.0]]), y=np.arange(3))
    np.savez(tmp_path / "surrogate.npz", x=np.arange(4.0)[:, None], y=np.array(["a\ud800", "b"] * 2))
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object), y=np.zeros(1))
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "fifo.csv")
    return tmp_path


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mariana", *arguments],
        cwd=folder,
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        "train good.csv --target nothing",
        "train missing.csv --target y",
        "train no-such-set --target y",
        "train empty.csv --target y",
        "train header.csv --target y",
        "train one_class.csv --target y",
        "train ragged.csv --target y",
        "train twice.csv --target y",
        "train binary.csv --target y",
        "train broken.csv.gz --target y",
        "train broken.npz --target y",
        "train wrong_names.npz --target y",
        "train pickled.npz --target y",
        "train folder.csv --target y",
        "train fifo.csv --target y",
        "train infinite.npz --target y",
        "train surrogate.npz --target y",
        "train too_large.csv --target y",
        "train good.csv --target y --name Not/A/Name",
        "train good.csv --target y --layers 0",
        "train good.csv --target y --layers x",
        "train good.csv --target y --layers 999999,999999",
        "train good.csv --target y --activation magic",
        "train good.csv --target y --optimizer magic",
        "train good.csv --target y --learning-rate -1",
        "train good.csv --target y --learning-rate nan",
        "train good.csv --target y --batch-size 0",
        "train good.csv --target y --epochs 0",
        "train good.csv --target y --validation 1.5",
        "train good.csv --target y --task magic",
        "train good.csv --target y --task regression",
        "predict nothing good.csv",
        "predict model.safetensors good.csv",
        "predict folder.csv good.csv",
        "evaluate nothing good.csv",
        "inspect nothing",
        "inspect model.safetensors",
        "inspect fifo.csv",
        "index missing.txt --name x",
        "index empty.txt --name x",
        "index bad.tsv --name x --strict",
        "index bad.jsonl --name x --strict",
        "index latin1.txt --name x --strict",
        "index folder.csv --name x",
        "index good.csv --name ../x",
        "complete nothing sai",
        "serve --port 70000",
        "serve --port x",
        "serve --host 256.256.256.256 --port 0",
        "magic",
        "train",
    ],
)
def test_command_line(folder: Path, arguments: str) -> None:
    done = _run(folder, *arguments.split())
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    if done.returncode == 1:
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("mariana: "), lines[0]
    else:
        assert lines[0].startswith("Usage: "), lines[0]
    assert 10 < len(lines[-1]) < 1000
    assert not list(folder.glob("store/*/*/[0-9]*")), "nothing was published"
    assert not list(folder.glob("store/**/.tmp-*")), "nothing was left behind"


def test_an_index_of_bad_lines_says_which_it_skipped(folder: Path) -> None:
    (folder / "mixed.tsv").write_text("text\tscore\nSaigon\t5\nHanoi\tmany\n", encoding="utf-8")
    done = _run(folder, "index", "mixed.tsv", "--name", "mixed")
    assert done.returncode == 0, done.stderr
    assert "line 3" in done.stdout + done.stderr
    found = _run(folder, "complete", "mixed", "sai")
    assert "Saigon" in found.stdout


def test_a_read_only_store_is_named(folder: Path) -> None:
    (folder / "store").write_text("a file where the folder should be", encoding="utf-8")
    done = _run(folder, "train", "good.csv", "--target", "y", "--epochs", "1")
    assert done.returncode == 1
    assert "store" in done.stderr
    assert "Traceback" not in done.stderr
