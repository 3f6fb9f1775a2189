"""The store: published whole or not at all."""

import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mariana import store as store_module
from mariana.errors import InvalidInputError, NotFoundError, StoreError
from mariana.store import NAME_PATTERN, Store, check_name, remove_abandoned, versions_in, write_whole


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# ---- Names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "0", "digits", "a.b-c_d", "x" * 64, "1..2"])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-a",
        "_a",
        "A",
        "a/b",
        "../a",
        "a\\b",
        "a\0",
        "a\n",
        "é",
        "x" * 65,
        "a b",
        "%2e",
    ],
)
def test_bad_names_never_become_paths(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    for use in (
        check_name,
        store.model_versions,
        store.model_path,
        store.index_path,
        store.new_index_path,
        lambda n: store.publish_model(n, b""),
    ):
        with pytest.raises(InvalidInputError, match="is no name for a model or an index"):
            use(name)
    assert files(tmp_path) == []


def test_a_long_bad_name_is_not_repeated_whole() -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_name("!" * 100_000)
    assert len(str(caught.value)) < 300


def test_the_pattern_is_public() -> None:
    assert NAME_PATTERN == r"[a-z0-9][a-z0-9_.-]{0,63}"


# ---- Models -----------------------------------------------------------------------------------------------------


def test_versions_count_up_and_the_highest_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "not" / "there" / "yet")
    assert store.model_names() == []
    for i in range(1, 12):
        path = store.publish_model("digits", str(i).encode())
        assert path == store.path / "models" / "digits" / str(i) / "model.safetensors"
    assert store.model_versions("digits") == list(range(1, 12))
    assert store.model_path("digits").read_bytes() == b"11"
    assert store.model_path("digits", 2).read_bytes() == b"2"
    assert store.model_names() == ["digits"]


def test_what_is_not_there_is_told_with_what_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(NotFoundError, match=r"no model 'digits' in .*; there are: none"):
        store.model_path("digits")
    store.publish_model("iris", b"")
    store.publish_model("iris", b"")
    with pytest.raises(NotFoundError, match=r"no model 'digits' in .*; there are: iris"):
        store.model_path("digits")
    for version in (0, 3, -1):
        with pytest.raises(NotFoundError, match=f"'iris' has no version {version}; there are: 1, 2"):
            store.model_path("iris", version)
    with pytest.raises(NotFoundError, match=r"no index 'cities' in .*; there are: none"):
        store.index_path("cities")
    store.new_index_path("cities").mkdir(parents=True)
    assert store.index_path("cities") == store.new_index_path("cities")
    assert store.index_names() == ["cities"]


def test_strangers_in_the_store_are_passed_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.publish_model("iris", b"good")
    folder = tmp_path / "models" / "iris"
    for name in ("0", "01", "-2", "2x", "1234567890", ".tmp-1", "latest"):
        (folder / name).mkdir()
        (folder / name / "model.safetensors").write_bytes(b"")
    (folder / "7").mkdir()  # without a model
    (tmp_path / "models" / "README").write_text("")
    (tmp_path / "models" / "Empty").mkdir()
    (tmp_path / "models" / "empty").mkdir()
    assert store.model_versions("iris") == versions_in(folder) == [1]
    assert store.model_names() == ["iris"]
    assert store.publish_model("iris", b"new").parent.name == "8"  # a number is never used again


def test_publishers_at_once_get_versions_of_their_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    published: list[Path] = []

    def publish(mark: int) -> None:
        for _ in range(5):
            path = store.publish_model("busy", bytes([mark]))
            assert path.read_bytes() == bytes([mark])
            published.append(path)

    threads = [threading.Thread(target=publish, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(published)) == 20
    assert store.model_versions("busy") == list(range(1, 21))


def test_a_stray_file_does_not_keep_abandoned_folders(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f".tmp-file{number}").touch()
        (tmp_path / f".tmp-folder{number}").mkdir()
    remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f".tmp-file{number}" for number in range(8)}


def test_what_a_killed_publisher_left_goes_and_what_a_living_one_makes_stays(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from mariana import store\n"
        "def write(path, data):\n"
        "    path.write_bytes(b'half')\n"
        "    print(path.parent.name, flush=True)\n"
        "    time.sleep(60)\n"
        "store.write_whole = write\n"
        "store.Store(sys.argv[1]).publish_model('iris', b'data')\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    folder = tmp_path / "models" / "iris"
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as living,
    ):
        assert killed.stdout is not None
        assert living.stdout is not None
        left, made = killed.stdout.readline().strip(), living.stdout.readline().strip()
        killed.kill()
        killed.wait()
        assert {left, made} == {path.name for path in folder.iterdir()}
        Store(tmp_path).publish_model("iris", b"whole")
        assert {"1", made} == {path.name for path in folder.iterdir()}
        living.kill()
    Store(tmp_path).publish_model("iris", b"whole")
    assert {"1", "2"} == {path.name for path in folder.iterdir()}


def test_what_is_published_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = Store(tmp_path).publish_model("iris", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


# ---- Writing ----------------------------------------------------------------------------------------------------


def test_write_whole_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    for data in (b"old", b"new and longer", b""):
        write_whole(path, data)
        assert path.read_bytes() == data
    assert files(tmp_path) == ["a/b/file"]


def failing(call: str, error: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(error, os.strerror(error))

    fail.__name__ = call
    return fail


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_failing_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: int
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    target: Any = os if call == "fsync" else Path
    monkeypatch.setattr(target, call, failing(call, error))
    with pytest.raises(StoreError, match=os.strerror(error)) as caught:
        write_whole(path, b"new")
    assert caught.value.errno == error
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_failing_disk_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    store = Store(tmp_path)
    store.publish_model("iris", b"old")
    monkeypatch.setattr(os if call == "fsync" else Path, call, failing(call, errno.ENOSPC))
    with pytest.raises(StoreError, match="No space left"):
        store.publish_model("iris", b"new")
    monkeypatch.undo()
    assert files(tmp_path) == ["models/iris/1/model.safetensors"]


def test_everything_is_synced_before_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    sync, rename, replace = os.fsync, Path.rename, Path.replace

    def fsync(descriptor: int) -> None:
        steps.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name.partition("-")[0])
        sync(descriptor)

    def renamed(path: Path, to: Path) -> Path:
        steps.append(f"name {to.name}")
        return (replace if to.name == "model.safetensors" else rename)(path, to)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(Path, "replace", renamed)
    Store(tmp_path / "store").publish_model("iris", b"data")
    names = [step for step in steps if step.startswith("name")]
    assert names == ["name model.safetensors", "name 1"]
    assert steps[steps.index(names[0]) - 1] == "sync .tmp"  # the file, before it gets its name
    assert steps[steps.index(names[0]) + 1] == "sync .tmp"  # its folder, after
    assert steps[-1] == "sync iris"
    assert {"sync store", "sync models"} <= set(steps)  # the folders that were made on the way


def test_a_store_below_a_file_is_an_error_in_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StoreError, match="cannot publish model 'iris'"):
        Store(blocked).publish_model("iris", b"")
    assert Store(blocked).model_names() == []


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module, "fsync_directory", interrupt)
    (tmp_path / "models" / "iris").mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).publish_model("iris", b"data")
    assert files(tmp_path) == []
