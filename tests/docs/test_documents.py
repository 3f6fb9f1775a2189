"""The documents tell the truth: their Python runs, their commands and links exist, each setting is described."""

import re
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import uvicorn

from mariana.cli import cli
from mariana.cli.index import index_terms
from mariana.server import create_app
from mariana.settings import Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "clients/*/*.md", "benchmarks/**/*.md")
    for path in ROOT.glob(pattern)
)
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def _blocks(text: str, *languages: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server over a store with the model `iris` and the index `cities`."""
    store = tmp_path_factory.mktemp("documents") / "store"
    cli(
        ["train", "iris", "--target", "species", "--epochs", "2", "--store", str(store)],
        standalone_mode=False,
    )
    index_terms("cities", store / "indexes" / "cities")
    server = uvicorn.Server(uvicorn.Config(create_app(Settings(store=store)), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.mark.parametrize(
    "name", [n for n, p in zip(NAMES, DOCUMENTS, strict=True) if "```python" in p.read_text()]
)
def test_python_runs(
    name: str, demo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "mariana/datasets"  # where docs/data.md makes the data that ships
    made.mkdir(parents=True)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in _blocks((ROOT / name).read_text(encoding="utf-8"), "python"):
        code = block.replace("http://127.0.0.1:8080", demo)
        exec(compile(code, name, "exec"), namespace)
    capsys.readouterr()
    for path in made.iterdir():
        shipped = ROOT / path.relative_to(tmp_path)
        if path.suffix == ".npz":
            for key, array in np.load(path).items():
                np.testing.assert_array_equal(array, np.load(shipped)[key])
        else:
            assert path.read_bytes() == shipped.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    path = ROOT / name
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{name} links to {target}"


@pytest.mark.parametrize("name", NAMES)
def test_commands_exist_with_their_options(name: str) -> None:
    context = click.Context(cli)
    text = (ROOT / name).read_text(encoding="utf-8")
    for block in _blocks(text, "sh", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True) if "mariana " in line else []
            if not words or words[0] != "mariana":
                continue
            command = cli.get_command(context, words[1])
            assert command is not None, line
            known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, line
    for target in re.findall(r"^make ([a-z-]+)", "\n".join(_blocks(text, "sh")), re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), (
            target
        )


def test_each_setting_is_described() -> None:
    described = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `MARIANA_([A-Z_]+)`", described, re.MULTILINE)) == {
        name.upper() for name in Settings.model_fields
    }


def test_every_command_teaches() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert re.search(r"^\s*Examples?:", command.help or "", re.MULTILINE), (
            f"mariana {name} --help has no example"
        )
        shown = command.get_help(click.Context(command))
        assert "\\b" not in shown, "a mark of click's is shown instead of heeded"
        assert re.search(rf"^ +mariana {name}", shown, re.MULTILINE), "the example was rewrapped"
