"""The file ``index.db``: every change since the segment was built, and what was learnt. SQLite, written ahead.

A transaction is on the disk when it has ended (``synchronous=FULL``: the log is fsynced at each commit). Several
processes may write; SQLite lets one at a time. docs/format.md explains the tables.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from mariana.errors import FileFormatError, StoreError
from mariana.live import learning
from mariana.store import fsync_directory, store_errors

JOURNAL_FILE = "index.db"
FORMAT = 3
"""1 had no ``items.id``, 2 no ``meta.merged``; they are added where one writes."""
BUSY_SECONDS = 10.0
"""How long a transaction waits for those of other processes."""

CLIENT_SELECTIONS = 100
"""Selections of one client that count in a day."""

_APPLICATION_ID = 0x4D524E4A  # "MRNJ"; file(1) and sqlite3 show it
_SCHEMA = """
CREATE TABLE meta (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    format     INTEGER NOT NULL,
    base       INTEGER NOT NULL,
    sequence   INTEGER NOT NULL,
    merged     INTEGER NOT NULL,
    clock      REAL NOT NULL,
    landmark   REAL NOT NULL,
    half_life  REAL NOT NULL,
    salt_day   INTEGER NOT NULL,
    salt       BLOB NOT NULL
);
CREATE TABLE items (
    text      TEXT PRIMARY KEY,
    score     REAL,
    payload   TEXT,
    contexts  TEXT,
    deleted   INTEGER NOT NULL,
    sequence  INTEGER NOT NULL,
    id        TEXT
);
CREATE INDEX items_by_sequence ON items (sequence);
CREATE INDEX items_by_id ON items (id) WHERE id NOT NULL;
CREATE TABLE learned (
    text      TEXT PRIMARY KEY,
    weight    REAL NOT NULL,
    sequence  INTEGER NOT NULL
);
CREATE INDEX learned_by_sequence ON learned (sequence);
CREATE TABLE spent (
    client  BLOB NOT NULL,
    text    TEXT NOT NULL,
    PRIMARY KEY (client, text)
) WITHOUT ROWID;
"""
_HEAD = "base, sequence, merged, clock, landmark, half_life"


class Head(NamedTuple):
    """Where the journal stands.

    Attributes:
        base: number of the segment that the changes are changes of.
        sequence: of the last change.
        merged: whoever holds the changes up to this one may keep the segment that he holds them on: the rows of the
            journal are all that he lacks. Who does not needs ``base``.
        clock: the latest time that it has gone by, days since 1970.
        landmark: the time as of which learnt weights count, likewise.
        half_life: of what is learnt, days.
    """

    base: int
    sequence: int
    merged: int
    clock: float
    landmark: float
    half_life: float


class Item(NamedTuple):
    """What an entry is apart from its text.

    Attributes:
        score: finite, >= 0.
        payload: JSON in UTF-8; empty for none.
        contexts: tags, as a JSON array in UTF-8; empty for none.
        id: of the document that it is a name of, UTF-8; empty for none.
    """

    score: float
    payload: bytes = b""
    contexts: bytes = b""
    id: bytes = b""


@dataclass(slots=True)
class Journal:
    """An open ``index.db``. Not to be used by two threads at a time, nor by a child of ``fork``.

    Attributes:
        path: the file.
        connection: SQLite's.
    """

    path: Path
    connection: sqlite3.Connection
    _file: tuple[object, ...]
    _frozen: bool

    @classmethod
    def open(cls, folder: Path) -> Self | None:
        """Open the journal of an index; None where nothing was ever written.

        What may not be written is opened for reading.

        Raises:
            FileFormatError: damaged, newer than this version, or something else.
            StoreError: it cannot be read.
        """
        path = folder / JOURNAL_FILE
        with store_errors(f"read {path}"), journal_errors(path):
            try:
                files = [_identity(path, frozen=frozen) for frozen in (False, True)]
            except (FileNotFoundError, NotADirectoryError):
                return None
            connection, frozen = _connect(path)
            journal = cls(path, connection, files[frozen], frozen)
            try:
                journal._check()
            except BaseException:
                journal.close()
                raise
            return journal

    @classmethod
    def create(cls, folder: Path, base: int, half_life: float) -> None:
        """Make an empty journal, whole and durably. The caller holds the index's lock."""
        path = folder / JOURNAL_FILE
        temporary = folder / f".tmp-{secrets.token_hex(8)}"
        with store_errors(f"make {path}"), journal_errors(path):
            try:
                connection = sqlite3.connect(temporary, isolation_level=None)
                try:
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                    connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
                    now = learning.tick(time.time() / learning.DAY, half_life)
                    connection.execute(
                        "INSERT INTO meta VALUES (1, ?, ?, 0, 0, ?, ?, ?, 0, ?)",
                        (FORMAT, base, now, now, half_life, b""),
                    )
                finally:
                    connection.close()  # moves the log into the file
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
                temporary.rename(path)
            finally:
                for end in ("", "-wal", "-shm"):
                    Path(f"{temporary}{end}").unlink(missing_ok=True)
            fsync_directory(folder)

    def _check(self) -> None:
        (application,) = self._one("PRAGMA application_id")
        if application != _APPLICATION_ID:
            raise FileFormatError(f"{self.path}: not the journal of an index; move it away")
        (version,) = self._one("SELECT format FROM meta")
        if version in (1, 2):
            self._upgrade(version)
        elif version != FORMAT:
            raise FileFormatError(
                f"{self.path}: format {version}, but this version of Mariana knows {FORMAT}: update Mariana"
            )

    def _upgrade(self, version: int) -> None:
        """Bring a journal of an older format to this one."""
        try:
            self._add_what_is_missing()
        except StoreError as error:
            if error.errno != errno.EROFS:
                raise
            raise StoreError(
                errno.EROFS,
                f"{self.path} is of format {version}, and has to be brought to format {FORMAT}, but may not be written: "
                "open the index once where it may",
            ) from error

    def _add_what_is_missing(self) -> None:
        with journal_errors(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                (version,) = self._one("SELECT format FROM meta")  # another process may have been quicker
                if version < 2:
                    self.connection.execute("ALTER TABLE items ADD COLUMN id TEXT")
                    self.connection.execute("CREATE INDEX items_by_id ON items (id) WHERE id NOT NULL")
                if version < FORMAT:
                    self.connection.execute("ALTER TABLE meta ADD COLUMN merged INTEGER NOT NULL DEFAULT 0")
                    self.connection.execute("UPDATE meta SET format = ?, merged = sequence", (FORMAT,))
                self.connection.execute("COMMIT")
            except BaseException:
                self._rollback()
                raise

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def _one(self, query: str, parameters: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = self.connection.execute(query, parameters).fetchone()
        if row is None:
            raise FileFormatError(f"{self.path}: the table meta is empty; restore the index from a copy")
        return row

    def version(self) -> int:
        """Return a number that changes when another connection has committed; cheap."""
        with journal_errors(self.path):
            (version,) = self._one("PRAGMA data_version")
        return int(version)

    @contextmanager
    def reading(self) -> Iterator[Head]:
        """One state of the file, whatever others write meanwhile; gives where it stands."""
        with journal_errors(self.path):
            self.connection.execute("BEGIN")
            try:
                yield self.head()
            finally:
                self._rollback()

    @contextmanager
    def writing(self) -> Iterator[Head]:
        """One transaction: on the disk at its end, or undone by an exception. Gives where it began."""
        with journal_errors(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.head()
                self.connection.execute("COMMIT")
            except BaseException:
                self._rollback()
                raise

    def _rollback(self) -> None:
        if self.connection.in_transaction:  # some errors have ended it
            self.connection.execute("ROLLBACK")

    def head(self) -> Head:
        """Return where the journal stands."""
        return Head(*self._one(f"SELECT {_HEAD} FROM meta"))  # noqa: S608 - a constant

    # ---- reading -----------------------------------------------------------------------------------------

    def items(self, after: int) -> Iterator[tuple[bytes, Item | None]]:
        """Yield what was changed after a sequence number: text and what it is now, None when it was deleted."""
        rows = self.connection.execute(
            "SELECT text, score, payload, contexts, id, deleted FROM items WHERE sequence > ?", (after,)
        )
        for text, score, payload, contexts, id_, deleted in rows:
            yield text.encode(), None if deleted else self._item(score, payload, contexts, id_)

    def item(self, text: bytes) -> tuple[bool, Item | None]:
        """Return whether a text was changed, and what it is now (None: deleted)."""
        row = self.connection.execute(
            "SELECT score, payload, contexts, id, deleted FROM items WHERE text = ?", (text.decode(),)
        ).fetchone()
        if row is None:
            return False, None
        return True, None if row[4] else self._item(*row[:4])

    def names_of(self, ids: Iterable[bytes]) -> list[bytes]:
        """Return the texts of what was changed, and is there, that are names of some documents."""
        found: list[bytes] = []
        for id_ in ids:
            rows = self.connection.execute(
                "SELECT text FROM items WHERE id = ? AND NOT deleted", (id_.decode(),)
            )
            found += [text.encode() for (text,) in rows]
        return found

    def _item(self, score: float, payload: str | None, contexts: str | None, id_: str | None) -> Item:
        """Return an entry out of its row; SQLite checks its pages' structure, not what stands in them."""
        try:
            if payload:
                json.loads(payload)
            names = json.loads(contexts) if contexts else []
        except ValueError:
            raise _damaged(self.path, "the payload or the contexts of an entry are not JSON") from None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _damaged(self.path, "the contexts of an entry are no list of names")
        return Item(score, (payload or "").encode(), (contexts or "").encode(), (id_ or "").encode())

    def contexts(self, after: int) -> set[str]:
        """Return the contexts of what was changed after a sequence number."""
        rows = self.connection.execute(
            "SELECT DISTINCT contexts FROM items WHERE sequence > ? AND contexts NOT NULL", (after,)
        )
        return {name for (names,) in rows for name in json.loads(names)}

    def learned(self, after: int) -> Iterator[tuple[bytes, float]]:
        """Yield texts and weights (``learning``) that were learnt after a sequence number."""
        for text, weight in self.connection.execute(
            "SELECT text, weight FROM learned WHERE sequence > ?", (after,)
        ):
            yield text.encode(), weight

    # ---- writing, inside ``writing()`` -------------------------------------------------------------------

    def put(self, sequence: int, entries: Iterable[tuple[bytes, Item]]) -> None:
        """Insert or replace entries."""
        self._set_items(
            (
                text.decode(),
                item.score,
                item.payload.decode() or None,
                item.contexts.decode() or None,
                0,
                sequence,
                item.id.decode() or None,
            )
            for text, item in entries
        )

    def delete(self, sequence: int, texts: Iterable[bytes]) -> None:
        """Delete entries. What was learnt of them stays until it has faded, and counts again if they come back."""
        self._set_items((text.decode(), None, None, None, 1, sequence, None) for text in texts)

    def _set_items(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self.connection.executemany(
            "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (text) DO UPDATE SET score = excluded.score, "
            "payload = excluded.payload, contexts = excluded.contexts, deleted = excluded.deleted, "
            "sequence = excluded.sequence, id = excluded.id",
            rows,
        )

    def select(self, sequence: int, text: bytes, clock: float, half_life: float) -> None:
        """Count one selection of an entry."""
        name = text.decode()
        row = self.connection.execute("SELECT weight FROM learned WHERE text = ?", (name,)).fetchone()
        weight = learning.add_selection(-float("inf") if row is None else row[0], clock, half_life)
        self.connection.execute(
            "INSERT INTO learned VALUES (?, ?, ?) "
            "ON CONFLICT (text) DO UPDATE SET weight = excluded.weight, sequence = excluded.sequence",
            (name, weight, sequence),
        )

    def may_spend(self, client: str, text: bytes, clock: float) -> bool:
        """Whether a client's selection would count: once a day for each entry, ``CLIENT_SELECTIONS`` times in all."""
        day, salt = self._one("SELECT salt_day, salt FROM meta")
        return day != int(clock) or self._has_left(_hashed(client, salt), text.decode())

    def _has_left(self, hashed: bytes, text: str) -> bool:
        count, same = self._one(
            "SELECT count(*), total(text = ?) FROM spent WHERE client = ?", (text, hashed)
        )
        return bool(count < CLIENT_SELECTIONS and not same)

    def spend(self, client: str, text: bytes, clock: float) -> bool:
        """Take a client's selection off what it may still spend; says whether there was something left.

        Clients are kept as hashes under a random salt that is forgotten, with them, at the end of the day (UTC).
        """
        day, salt = self._one("SELECT salt_day, salt FROM meta")
        if day != int(clock):
            salt = secrets.token_bytes(16)
            self.connection.execute("DELETE FROM spent")
            self.connection.execute("UPDATE meta SET salt_day = ?, salt = ?", (int(clock), salt))
        hashed = _hashed(client, salt)
        if not self._has_left(hashed, text.decode()):
            return False
        self.connection.execute("INSERT INTO spent VALUES (?, ?)", (hashed, text.decode()))
        return True

    def advance(self, sequence: int, clock: float) -> None:
        """Say how far the changes of this transaction go."""
        self.connection.execute("UPDATE meta SET sequence = ?, clock = ?", (sequence, clock))

    def rebase(self, base: int, upto: int, *, compacted: bool) -> None:
        """Stand on another segment, which holds all changes up to a sequence number.

        Args:
            base: the number of the segment.
            upto: the last change that it holds.
            compacted: whether it holds what the one before did with the changes; else it is another list.
        """
        # Others wait to write meanwhile. Freed pages need not be overwritten, and emptying a table frees them unread.
        self.connection.execute("PRAGMA secure_delete = FAST")
        (later,) = self._one("SELECT count(*) FROM items WHERE sequence > ?", (upto,))
        (there,) = self._one("SELECT count(*) FROM items")
        if later < there / 4:
            self.connection.execute(
                "CREATE TEMP TABLE later AS SELECT * FROM items WHERE sequence > ?", (upto,)
            )
            self.connection.execute("DELETE FROM items")
            self.connection.execute("INSERT INTO items SELECT * FROM later")
            self.connection.execute("DROP TABLE later")
        else:
            self.connection.execute("DELETE FROM items WHERE sequence <= ?", (upto,))
        self.connection.execute("UPDATE meta SET base = ?, sequence = sequence + 1", (base,))
        self.connection.execute("UPDATE meta SET merged = iif(?, ?, sequence)", (compacted, upto))

    def age(self, clock: float) -> None:
        """Count what was learnt as of now, and forget what has faded."""
        head = self.head()
        self.connection.execute("UPDATE meta SET clock = ?, landmark = ?", (clock, clock))
        faded = clock / head.half_life + math.log2(learning.FORGOTTEN)
        self.connection.execute("DELETE FROM learned WHERE weight < ?", (faded,))

    def set_half_life(self, half_life: float) -> None:
        """Let what is learnt fade at another pace from now on; a transaction of its own."""
        if self.head().half_life == half_life:
            return
        with self.writing() as head:
            self.connection.create_function(
                "reweigh", 1, lambda weight: learning.reweigh(weight, head.clock, head.half_life, half_life)
            )
            self.connection.execute("UPDATE learned SET weight = reweigh(weight)")
            self.connection.execute("UPDATE meta SET half_life = ?, landmark = clock", (half_life,))

    def copy(self, folder: Path) -> Head:
        """Copy the journal to another folder as it is at one time, durably; return where it stood."""
        path = folder / JOURNAL_FILE
        with journal_errors(path):
            path.unlink(missing_ok=True)
            target = sqlite3.connect(path, isolation_level=None)
            try:
                self.connection.backup(target)
                head = Head(*target.execute(f"SELECT {_HEAD} FROM meta").fetchone())  # noqa: S608 - a constant
            finally:
                target.close()
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return head

    def in_place(self) -> bool:
        """Whether the file is still what was opened.

        Not when the index was deleted or restored from a copy, when it could not be written then and can now, nor when
        it was opened as a file that nobody writes and somebody did, who has other rights or another mount.
        """
        try:
            return _identity(self.path, frozen=self._frozen) == self._file
        except OSError:
            return False


def _hashed(client: str, salt: bytes) -> bytes:
    return hashlib.blake2b(client.encode("utf-8", "replace"), digest_size=16, salt=salt).digest()


def _identity(path: Path, *, frozen: bool) -> tuple[object, ...]:
    """Return what stays while an open file is to be kept open; ``frozen``: SQLite takes no notice of its log."""
    status = path.stat()
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    content = (status.st_mtime_ns, status.st_size, Path(f"{path}-wal").exists()) if frozen else ()
    return status.st_dev, status.st_ino, writable, *content


def _connect(path: Path) -> tuple[sqlite3.Connection, bool]:
    """Open the file for writing where that is allowed, or else for reading; tell whether as one that nobody writes."""
    for mode in ("mode=rw", "mode=ro", "mode=ro&immutable=1"):
        # Where not even the log's index can be made, and without a log, the file says all (``in_place``: as long as it does).
        if "immutable" in mode and Path(f"{path}-wal").exists():
            break
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA temp_store = MEMORY")  # nothing is written beside the index
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            connection.close()
            failure = error
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
        except BaseException:
            connection.close()
            raise
        else:
            return connection, "immutable" in mode
    raise failure


@contextmanager
def journal_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite refuses into errors of ours, which name the file."""
    try:
        yield
    except UnicodeDecodeError as error:  # of SQLite's own words: it quotes what it found in a damaged schema
        raise _damaged(path, "its schema is not UTF-8") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
        kind = code & 0xFF
        if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or (
            kind == sqlite3.SQLITE_ERROR and isinstance(error, sqlite3.OperationalError)
        ):
            raise _damaged(path, error) from error
        if kind == sqlite3.SQLITE_IOERR and _is_full(path.parent):
            kind = sqlite3.SQLITE_FULL  # SQLite says so of some writes only
        if kind not in _REASONS:
            raise StoreError(errno.EIO, f"cannot use {path}: {error} ({name})") from error
        number, reason = _REASONS[kind]
        raise StoreError(number, f"cannot use {path}: {reason}") from error


def _damaged(path: Path, what: object) -> FileFormatError:
    return FileFormatError(
        f"{path}: damaged ({what}); restore the index from a copy, or move {JOURNAL_FILE} away to go on "
        "with what its segment holds"
    )


def _is_full(folder: Path) -> bool:
    try:
        return os.statvfs(folder).f_bavail == 0
    except OSError:
        return False


_REASONS = {
    sqlite3.SQLITE_FULL: (errno.ENOSPC, "the disk is full"),
    sqlite3.SQLITE_READONLY: (errno.EROFS, "the file or its folder may not be written"),
    sqlite3.SQLITE_CANTOPEN: (errno.EACCES, "the file or its folder may not be opened"),
    sqlite3.SQLITE_PERM: (errno.EACCES, "the file may not be used"),
    sqlite3.SQLITE_BUSY: (errno.EBUSY, f"another process has been writing for {BUSY_SECONDS:g} s; try again"),
    sqlite3.SQLITE_LOCKED: (errno.EBUSY, "it is being written; try again"),
}
