"""The store: one folder of models and indexes, published whole.

::

    store/models/NAME/VERSION/model.safetensors     VERSION = 1, 2, ...; the highest is served
    store/indexes/NAME/                             the files of one autocomplete index

Nothing is ever half there: a file is written beside its place, fsynced, and renamed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mariana.errors import InvalidInputError, NotFoundError, StoreError

NAME_PATTERN = r"[a-z0-9][a-z0-9_.-]{0,63}"
MODEL_FILE = "model.safetensors"
_NAME = re.compile(NAME_PATTERN)
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


def check_name(name: str) -> str:
    """Return ``name`` if it may name a model or an index; raise InvalidInputError otherwise."""
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"{name[:64]!r} is no name for a model or an index: use 1 to 64 of a-z, 0-9, '_', '.', '-', "
            "beginning with a letter or digit"
        )
    return name


def fsync_directory(path: Path) -> None:
    """Make a rename inside ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of those who write in a folder; gives False when it is taken and ``wait`` is not asked for.

    It ends with the process that holds it, however that ends.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


@contextmanager
def store_errors(doing: str) -> Iterator[None]:
    """Turn what the operating system refuses into a StoreError that says what was tried."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(error.errno, f"cannot {doing}: {error.strerror or error}") from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part; durable on return.

    Raises:
        StoreError: the disk is full, read-only, or the folder cannot be made.
    """
    with store_errors(f"write {path}"):
        make_folder(path.parent)
        temporary = _temporary(path.parent)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_directory(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        fsync_directory(folder.parent)


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Give a hidden folder, locked as long as its maker lives, to make something in and rename it; else it goes at the end."""
    temporary = _temporary(folder)
    with ExitStack() as held:
        with locked(folder):  # else it could be taken for abandoned before it has its lock
            temporary.mkdir()
            held.enter_context(locked(temporary))
        try:
            yield temporary
        finally:
            _remove(temporary)


def remove_abandoned(folder: Path) -> None:
    """Remove what makers of hidden folders have left that were killed; where nothing may be removed, it stays."""
    for leftover in folder.glob(".tmp-*"):
        with suppress(OSError), locked(folder), locked(leftover, wait=False) as abandoned:
            if abandoned:
                _remove(leftover)


def _remove(folder: Path) -> None:
    if folder.exists():
        import shutil  # noqa: PLC0415 - takes long to import, and is rarely needed

        shutil.rmtree(folder, ignore_errors=True)


def _temporary(folder: Path) -> Path:
    """Return a path that nothing else uses and that no listing shows."""
    return folder / f".tmp-{os.urandom(8).hex()}"


def versions_in(folder: Path) -> list[int]:
    """Return the versions that a model's folder holds, ascending; empty when there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(
        int(entry.name)
        for entry in folder.iterdir()
        if _VERSION.fullmatch(entry.name) and (entry / MODEL_FILE).exists()
    )


def _renamed(folder: Path, name: Path) -> bool:
    """Rename a folder; say no when another one has taken the name meanwhile."""
    try:
        folder.rename(name)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    return True


class Store:
    """A folder of models and indexes.

    Args:
        path: the folder; made when something is first published.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    def model_names(self) -> list[str]:
        """Return the names of the models that have at least one version, sorted."""
        return [name for name in self._names("models") if self.model_versions(name)]

    def model_versions(self, name: str) -> list[int]:
        """Return the versions of a model, ascending; empty for an unknown one."""
        return versions_in(self.path / "models" / check_name(name))

    def model_path(self, name: str, version: int | None = None) -> Path:
        """Return the file of a model; of its highest version when none is named.

        Raises:
            NotFoundError: there is no such model or version.
        """
        versions = self.model_versions(name)
        if not versions:
            known = ", ".join(self.model_names()) or "none"
            raise NotFoundError(f"no model {name!r} in {self.path}; there are: {known}")
        if version is not None and version not in versions:
            raise NotFoundError(
                f"model {name!r} has no version {version}; there are: {', '.join(map(str, versions))}"
            )
        return self.path / "models" / name / str(version or versions[-1]) / MODEL_FILE

    def publish_model(self, name: str, data: bytes, beside: Mapping[str, bytes] | None = None) -> Path:
        """Publish the bytes of a model file as the next version and return its path.

        Two publishers at once get two versions. What one that was killed has left behind goes.

        Args:
            name: of the model.
            data: the model file.
            beside: files that stand beside it, by name, such as the model card.
        """
        folder = self.path / "models" / check_name(name)
        with store_errors(f"publish model {name!r} in {self.path}"):
            make_folder(folder)
            remove_abandoned(folder)
            with unfinished(folder) as temporary:
                for file, content in {MODEL_FILE: data, **(beside or {})}.items():
                    write_whole(temporary / file, content)
                version = self._next_version(folder)
                while not _renamed(temporary, folder / str(version)):
                    version = self._next_version(folder)
            fsync_directory(folder)
        return folder / str(version) / MODEL_FILE

    @staticmethod
    def _next_version(folder: Path) -> int:
        return max((int(p.name) for p in folder.iterdir() if _VERSION.fullmatch(p.name)), default=0) + 1

    def index_names(self) -> list[str]:
        """Return the names of the indexes, sorted."""
        return self._names("indexes")

    def index_path(self, name: str) -> Path:
        """Return the folder of an index.

        Raises:
            NotFoundError: there is no such index.
        """
        folder = self.path / "indexes" / check_name(name)
        if not folder.is_dir():
            known = ", ".join(self.index_names()) or "none"
            raise NotFoundError(f"no index {name!r} in {self.path}; there are: {known}")
        return folder

    def new_index_path(self, name: str) -> Path:
        """Return the folder where an index of this name belongs, whether it is there or not."""
        return self.path / "indexes" / check_name(name)

    def _names(self, kind: str) -> list[str]:
        folder = self.path / kind
        if not folder.is_dir():
            return []
        return sorted(
            entry.name for entry in folder.iterdir() if entry.is_dir() and _NAME.fullmatch(entry.name)
        )
