"""The wheel and the sdist: real files, everything in, small; and an installed wheel works away from the sources."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("csrc", "mariana", "trainer", "server", "clients")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
BUILT = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info", "build", "_kernel.c", "node_modules")


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build an sdist from a copy of the sources, and the wheel from the sdist, as an index would serve them."""
    folder = tmp_path_factory.mktemp("packaging")
    sources = folder / "sources"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, sources / name, symlinks=True, ignore=BUILT)
    for name in FILES:
        shutil.copy2(ROOT / name, sources / name)
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        str(folder / "dist"),
        str(sources),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = (folder / "dist").glob("*.whl")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    return wheel, sdist


def _modules() -> set[str]:
    found = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mariana").glob("**/*.py")}
    for link in ("trainer", "server"):
        found |= {f"mariana/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / link).glob("**/*.py")}
    return {name for name in found if "__pycache__" not in name}


def test_wheel_is_one_abi3_wheel_with_everything_in(distributions: tuple[Path, Path]) -> None:
    wheel, _ = distributions
    assert "-cp311-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        data = sum(i.file_size for i in archive.infolist() if i.filename.startswith("mariana/datasets/"))
    assert _modules() <= names
    assert {
        "mariana/py.typed",
        "mariana/_kernel.pyi",
        "mariana/_kernel.abi3.so",
        "mariana/_calls.pyi",
        "mariana/_calls.abi3.so",
        "mariana/_roofs.abi3.so",
    } <= names
    exported = ("csrc/activation_template.h", "csrc/activations.def", "csrc/embedded/core.h")
    assert {name for name in names if name.startswith("mariana/csrc/")} == {
        f"mariana/{name}" for name in exported
    }
    static = {f"mariana/server/static/{path.name}" for path in (ROOT / "server/static").iterdir()}
    assert static
    assert static <= names
    assert "mariana/server/static/mariana-autocomplete.js" in names
    assert data < 2_000_000, "the data sets together stay under 2 MB"
    assert not [name for name in names if name.split("/")[0] != "mariana" and ".dist-info/" not in name]


def test_sdist_holds_real_files_and_the_c_sources(distributions: tuple[Path, Path]) -> None:
    _, sdist = distributions
    with tarfile.open(sdist) as archive:
        members = {member.name.split("/", 1)[-1]: member for member in archive.getmembers()}
    assert not [name for name, member in members.items() if member.issym() or member.islnk()]
    sources = {
        p.relative_to(ROOT).as_posix() for p in (ROOT / "csrc").rglob("*.[chd]*") if "build/" not in str(p)
    }
    assert {name for name in sources if (ROOT / name).is_file()} <= members.keys()
    assert _modules() <= members.keys()


def test_installed_wheel_works_away_from_the_sources(
    distributions: tuple[Path, Path], tmp_path: Path
) -> None:
    wheel, _ = distributions
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    program = (
        "import mariana, mariana._kernel, mariana._calls, mariana._roofs, mariana.trainer, mariana.server, sys\n"
        "from mariana import roofline\n"
        "from mariana.exchange.to_c import header\n"
        "assert 'net_predict' in header(roofline.network((2, 3)), 'net')\n"
        "assert mariana.__file__.startswith(sys.argv[1]), mariana.__file__\n"
        "mariana.build_index('index', [('Saigon', 2), ('Saint-Denis', 1)])\n"
        "print([c.text for c in mariana.open_index('index').complete('sai')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(site)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['Saigon', 'Saint-Denis']"
