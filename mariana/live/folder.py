"""The folder of an index: its segments, and which of them counts.

::

    segment-00000007.mrx     the entries; a higher number is newer
    index.db                 what changed since, if anything ever did (``journal``); names the segment that counts

Without ``index.db`` the highest segment counts. A new segment is written whole first, then ``index.db`` is told in one
transaction, then the older ones go: whatever is cut short, what counts is there. All who publish hold a lock on the
folder meanwhile; readers take none.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from mariana._binding import trie
from mariana.errors import FileFormatError, MarianaError, NotFoundError
from mariana.live.journal import Head, Journal
from mariana.store import locked, make_folder, store_errors, write_whole

_SEGMENT = re.compile(r"segment-([0-9]{8})\.mrx")
_FILE_MAX = (1 << 32) + 4096


def segment_numbers(folder: Path) -> list[int]:
    """Return the numbers of the segments in a folder, ascending."""
    found = (_SEGMENT.fullmatch(name) for name in os.listdir(folder))  # noqa: PTH208 - asked 30 times a second
    return sorted(int(match[1]) for match in found if match)


def segment_path(folder: Path, number: int) -> Path:
    """Return the file of a segment."""
    return folder / f"segment-{number:08}.mrx"


def open_segment(path: Path) -> trie.Segment:
    """Map a segment and check all of it.

    Raises:
        FileNotFoundError: it is not there.
        FileFormatError: damaged, newer than this version, or something else.
    """
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FileFormatError(f"{path}: not a regular file; an index segment is named segment-*.mrx")
        if status.st_size == 0:
            raise FileFormatError(f"{path}: the file is empty; build the index again")
        if status.st_size > _FILE_MAX:
            raise FileFormatError(f"{path}: {status.st_size} bytes are more than a segment can have")
        file = mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ)
        segment = trie.Segment(file, str(path))
        file.madvise(mmap.MADV_DONTNEED)  # the check has touched every page, and searches touch few of them
        return segment
    finally:
        os.close(descriptor)


def current_segment(folder: Path, head: Head | None) -> int:
    """Return the number of the segment that counts.

    Args:
        folder: of the index.
        head: where its journal stands; None when it has none.

    Raises:
        NotFoundError: there is no index.
    """
    if head is not None:
        return head.base
    there = segment_numbers(folder)
    if not there:
        raise NotFoundError(f"no index in {folder}: it holds no segment-*.mrx; build one with build_index")
    return there[-1]


def sequence_of(folder: Path) -> int:
    """Return the sequence number of the last change to an index; 0 when nothing ever changed it."""
    journal = Journal.open(folder)
    if journal is None:
        return 0
    try:
        with journal.reading() as head:
            return head.sequence
    finally:
        journal.close()


def publish(folder: Path, file: Any, upto: int) -> None:
    """Publish a segment that stands for everything up to a sequence number; later changes stay on top of it.

    Args:
        folder: of the index; made when it is not there.
        file: the bytes of the segment.
        upto: a sequence number of the journal.

    Raises:
        StoreError: the disk is full or read-only.
    """
    with store_errors(f"publish the index {folder}"):
        make_folder(folder)
        try:
            with locked(folder):
                publish_locked(folder, file, upto)
        except BaseException:
            with suppress(
                OSError
            ):  # it is not empty: of an index that was there before, or another publisher's
                folder.rmdir()
            raise


def publish_locked(folder: Path, file: Any, upto: int, onto: int | None = None) -> bool:
    """Do the same as :func:`publish`; the caller holds the lock.

    Args:
        folder: of the index.
        file: the bytes of the segment.
        upto: a sequence number of the journal.
        onto: publish only if this segment still counts, of which the new one is a compaction.

    Returns:
        Whether it was published.
    """
    there = segment_numbers(folder)
    journal = Journal.open(folder)
    try:
        base = max(there, default=0) if journal is None else journal.head().base
        if onto is not None and base != onto:
            return False
        _tidy(folder, there, base)
        number = max([base, *there]) + 1
        path = segment_path(folder, number)
        write_whole(path, file)
        if journal is not None:
            try:
                with journal.writing():
                    journal.rebase(number, upto, compacted=onto is not None)
            except MarianaError:
                if journal.head().base != number:
                    path.unlink()
                raise
    finally:
        if journal is not None:
            journal.close()
    if base:
        segment_path(folder, base).unlink(missing_ok=True)
    return True


def _tidy(folder: Path, there: list[int], base: int) -> None:
    """Remove what publishers that were killed have left behind."""
    for number in there:
        if number != base:
            segment_path(folder, number).unlink(missing_ok=True)
    for leftover in folder.glob(".tmp-*"):
        leftover.unlink(missing_ok=True)
