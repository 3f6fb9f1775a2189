"""Autocomplete: open an index, complete prefixes from it, change it.

An index is a folder that holds one segment, ``segment-00000001.mrx`` (``building`` makes it), and, once it was changed,
``index.db`` with the changes since (docs/live.md). A rebuild publishes the next number whole and removes the older ones.
Readers that have an older one open go on with it. Segments are mapped, not read, so nothing but Mariana may write in
that folder: a file that is cut short while it is mapped ends the process that reads it.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

from mariana._binding import trie
from mariana.entries import Entry, check_entries, parse_payload, read_text
from mariana.errors import FileFormatError, InvalidInputError, NotFoundError, OutOfRangeError
from mariana.live import folder
from mariana.live.layers import Layers
from mariana.live.state import LiveIndex, Receipt
from mariana.store import store_errors

Fuzzy = Literal["auto", 0, 1, 2]
Names = str | Collection[str]
"""One context, or several."""

LIMIT_MAX = trie.LIMIT_MAX
"""The most completions that one call gives."""

QUERY_MAX = trie.QUERY_MAX
"""The longest query, in bytes of UTF-8, before and after folding."""

ERROR_FACTORS = (1, 1024, 1024 * 64)
"""No, one and two typing errors make a rank so many times worse."""

_NO_NAMES = ()
_WANTED_NAMES = f"context and prefer must be names: strings, {trie.TAGS_MAX} at most"


_Answer = TypeVar("_Answer")


class Answers(list[_Answer]):
    """What an index answers, best first: a list that says whether it is all that there is to say."""

    partial: bool = False
    """Whether the search was cut short: the answers are right and in order, but a better one, with typing errors, may
    be missing (docs/matching.md, "What is bounded"). Another letter finds it."""


class Completion(NamedTuple):
    """One answer."""

    text: str
    """The entry as it was given."""
    score: float
    """As it was given."""
    edits: int
    """Typing errors between the prefix and the text; 0 is an exact match of the folded forms."""
    highlights: tuple[tuple[int, int], ...]
    """What the prefix covers, as (start, end) in code points of ``text``."""
    payload: Any
    """The JSON value that was given with the entry, or None."""
    id: str | None = None
    """Of the document that the entry is a name of, or None."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an answer stands where it does. Its score is ``base + learned``.

    Attributes:
        completion: the answer.
        base: the score that the entry was given.
        learned: what selections added to it.
        selections: how many these are by now; each one has faded since it was made.
        factor: what the typing errors cost: so many times worse is its rank; 1,024 for one, 64 times that for two.
        live: whether the entry was changed since the segment was built.
    """

    completion: Completion
    base: float
    learned: float
    selections: float
    factor: int
    live: bool


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """What an index is.

    Attributes:
        path: the segment file.
        entries: texts in it.
        bytes: its size.
        format_version: of the file's layout.
        fold_version: of the table that the texts were folded with.
    """

    path: Path
    entries: int
    bytes: int
    format_version: int
    fold_version: int


class Index:
    """An open index; any number of threads may use it at a time.

    Made by :func:`open_index`. A context manager: leaving it closes the index. An index that was opened as a folder
    can be changed: :meth:`insert`, :meth:`delete` and :meth:`select` are on the disk and visible here when they return.
    What other processes write is seen after :meth:`refresh`.
    """

    def __init__(self, source: LiveIndex | Layers, path: Path) -> None:
        self._source: LiveIndex | Layers | None = source
        self._path = path

    def __len__(self) -> int:
        return self.info.entries

    def __repr__(self) -> str:
        if self._source is None:
            return f"<closed Index: {self._path}>"
        return f"<Index of {len(self)} entries: {self.info.path}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files; calls that are running finish first. Closing twice does nothing."""
        source, self._source = self._source, None  # the last user's reference unmaps the segment
        if isinstance(source, LiveIndex):
            source.close()

    @property
    def info(self) -> IndexInfo:
        """What the index is by now."""
        source = self._opened()
        path = source.segment if isinstance(source, LiveIndex) else self._path
        reader = source.reader
        return IndexInfo(path, reader.entries, reader.nbytes, trie.FORMAT_VERSION, trie.FOLD_VERSION)

    @property
    def nbytes(self) -> int:
        """Bytes of the segment file, all of them mapped, and of the changes in memory."""
        return self.info.bytes

    @property
    def live(self) -> bool:
        """Whether the index was ever changed since it was made."""
        return isinstance(self._source, LiveIndex) and self._source.live

    @property
    def sequence(self) -> int:
        """The number of the last change that is visible here; 0 when there never was one."""
        return self._source.sequence if isinstance(self._source, LiveIndex) else 0

    def _opened(self) -> LiveIndex | Layers:
        if self._source is None:
            raise InvalidInputError("the index is closed")
        return self._source

    def _folder(self) -> LiveIndex:
        source = self._opened()
        if not isinstance(source, LiveIndex):
            raise InvalidInputError("the index was opened as a file: open its folder to change it")
        return source

    def insert(self, entries: Iterable[Entry]) -> Receipt:
        """Insert entries, or replace whole those of the same text: all of them or none.

        Args:
            entries: as :func:`mariana.build_index` takes them. Of a text that comes twice, the later one counts.

        Returns:
            ``sequence``, the number of the change, and ``count``, that of the entries.

        Raises:
            InvalidInputError: an entry is refused (``pointer`` says which); nothing was changed.
            StoreError: the disk is full or read-only; nothing was changed.

        Example:
            >>> index = open_index("store/indexes/cities")  # doctest: +SKIP
            >>> index.insert([("Duskville", 70_000)])  # doctest: +SKIP
            Receipt(sequence=1, count=1)
        """
        source = self._folder()
        return source.put(check_entries(entries, source.reader.tags))

    def delete(self, texts: Iterable[str] = (), *, ids: Iterable[str] = ()) -> Receipt:
        """Delete entries by their texts, or by the ids of their documents: all of them or none.

        Args:
            texts: as they are shown. Those that are not there do not count.
            ids: every entry that is a name of one of these documents goes.

        Returns:
            ``sequence``, and ``count``, the number of the entries that were there.

        Raises:
            InvalidInputError: a text or an id is no string (``pointer`` says which), or ``texts`` or ``ids`` is one.
            StoreError: as :meth:`insert`.
        """
        source = self._folder()
        if isinstance(texts, str) or isinstance(ids, str):
            raise InvalidInputError("texts and ids must be several strings; put the one into a list")
        return source.delete(
            [read_text(text, f"/{position}") for position, text in enumerate(texts)],
            [read_text(id_, f"/{position}") for position, id_ in enumerate(ids)],
        )

    def select(self, text: str, client: str | None = None) -> Receipt:
        """Learn that somebody chose an entry: it ranks higher from now on, and less so as time goes by.

        Each selection adds the entry's own score once more; what is added halves with each half-life. Nothing else
        changes its place. Call it when an entry is chosen, not when it is shown or typed.

        Args:
            text: of the entry.
            client: who chose, such as a network address. One counts once a day for each entry, and 100 times a day in
                all. It is kept as a hash, until the end of the day. None always counts.

        Returns:
            ``sequence``, and ``count``: 1, or 0 when the client's selections are used up.

        Raises:
            NotFoundError: there is no such entry.
            InvalidInputError: an argument is no string.
            StoreError: as :meth:`insert`.
        """
        source = self._folder()
        if client is not None and not isinstance(client, str):
            raise InvalidInputError(f"client must be a string, got {type(client).__name__}")
        return source.select(read_text(text, ""), client)

    def refresh(self, *, wait: bool = True) -> bool:
        """Take what other processes have written, or a rebuild; costs microseconds when there is nothing.

        All is visible then that was acknowledged, anywhere, before the call.

        Args:
            wait: for a thread that is writing here. Without, what others wrote may be left to the next call: for one
                that looks again and again, at many indexes.

        Returns:
            Whether there was something new.

        Raises:
            FileFormatError: what was written is damaged; the index stays as it was.
            StoreError: it cannot be read; the index stays as it was.
        """
        source = self._opened()
        return isinstance(source, LiveIndex) and source.refresh(wait=wait)

    def fade(self) -> bool:
        """Let fade what was learnt, if it is time for the next step (eight in a half-life).

        :meth:`select` does so too; a program that runs for long calls this now and then, as the server does.

        Returns:
            Whether it was.

        Raises:
            StoreError: the disk is full or read-only.
        """
        source = self._opened()
        return isinstance(source, LiveIndex) and source.fade()

    def compact(self) -> bool:
        """Move all changes into a new segment. It happens by itself when there are many.

        Returns:
            Whether it was done: not when there are none, or when another process is at it.

        Raises:
            StoreError: the disk is full or read-only; nothing was changed.
        """
        source = self._folder()
        if not source.compact():
            return False
        source.refresh()
        source.settle()
        return True

    def backup(self, target: str | os.PathLike[str]) -> None:
        """Copy the index as it is at one time, whole, while everybody goes on reading and writing.

        Args:
            target: a folder that is not there yet.

        Raises:
            InvalidInputError: it is there.
            StoreError: it cannot be written.
        """
        self._folder().backup(Path(target))

    def complete(
        self,
        prefix: str,
        limit: int = 10,
        fuzzy: Fuzzy = "auto",
        *,
        context: Names = _NO_NAMES,
        prefer: Names = _NO_NAMES,
    ) -> Answers[Completion]:
        """Return the best entries for what was typed, best first.

        Entries match that begin with it, or that have a word that begins with it, or all its words in any order.
        Case, accents and compatibility forms do not count. Best means: by score, descending; then by the number of
        code points of the text, ascending; then by its UTF-8 bytes. What matches less well is put back in rank: the first
        typing error costs a factor of 1,024. docs/matching.md has all the rules.

        Args:
            prefix: what was typed; empty gives the best of all. At most 256 bytes before and after folding.
            limit: at most so many, 1 to 100.
            fuzzy: typing errors to forgive: a character left out, added, exchanged, or swapped with its neighbour,
                the first one like any other. "auto" means 0 below 4 characters of the folded prefix, 1 from 4 and
                2 from 8. Prefixes of more than 60 characters are taken as typed right.
            context: only entries with this context, or one of these; none means all entries.
            prefer: entries without this context, or any of these, come later: their rank is 64 times worse.

        Returns:
            A list of :class:`Completion`; its ``partial`` says whether a better one with errors may be missing.

        Raises:
            OutOfRangeError: the limit is not in 1 to 100, or the prefix is too long.
            InvalidInputError: anything else is wrong with an argument, or the index is closed.

        Example:
            >>> index = open_index("store/indexes/cities")  # doctest: +SKIP
            >>> [c.text for c in index.complete("dus", limit=2)]  # doctest: +SKIP
            ['Dushanbe', 'Düsseldorf']
        """
        source = self._source  # not by a call, which would be a tenth of it all
        reader = (self._opened() if source is None else source).reader
        if context is _NO_NAMES is prefer:
            found = reader.quick.complete(prefix, limit, fuzzy, Completion, self._payload, Answers)
            if found is not None:
                return found
        hits, partial = reader.complete(*_query(prefix, limit, fuzzy, context, prefer))
        return _answers(
            [
                Completion(
                    hit.text.decode(),
                    hit.score,
                    hit.edits,
                    hit.highlights,
                    self._payload(hit.payload),
                    hit.id.decode() or None,
                )
                for hit in hits
            ],
            partial=partial,
        )

    def complete_json(
        self,
        prefix: str,
        limit: int = 10,
        fuzzy: Fuzzy = "auto",
        *,
        context: Names = _NO_NAMES,
        prefer: Names = _NO_NAMES,
    ) -> bytes:
        """Return what :meth:`complete` does as the body that HTTP answers with, out of one call into C.

        Raises:
            OutOfRangeError, InvalidInputError: as :meth:`complete`.

        Returns:
            JSON in UTF-8: ``{"query", "completions": [{"text", "score", "edits", "highlights", "payload"}]}``, with
            ``id`` for those that are names of a document, and ``"partial":true`` where the list's ``partial`` is.
        """
        source = self._source  # not by a call, which would be a tenth of it all
        reader = (self._opened() if source is None else source).reader
        if context is _NO_NAMES is prefer:
            body = reader.quick.json(prefix, limit, fuzzy)
            if body is not None:
                return body
        return reader.complete_json(*_query(prefix, limit, fuzzy, context, prefer))

    def explain(
        self,
        prefix: str,
        limit: int = 10,
        fuzzy: Fuzzy = "auto",
        *,
        context: Names = _NO_NAMES,
        prefer: Names = _NO_NAMES,
    ) -> Answers[Explanation]:
        """Return what :meth:`complete` does, each answer with what its place comes from.

        Raises:
            OutOfRangeError, InvalidInputError: as :meth:`complete`.
        """
        source = self._opened()
        explained = []
        completions = self.complete(prefix, limit, fuzzy, context=context, prefer=prefer)
        for completion in completions:
            text = completion.text.encode()
            parts = source.explain(text) if isinstance(source, LiveIndex) else None
            base, learned, selections, live = parts or (completion.score, 0.0, 0.0, False)
            factor = ERROR_FACTORS[completion.edits]
            explained.append(Explanation(completion, base, learned, selections, factor, live))
        return _answers(explained, partial=completions.partial)

    def _payload(self, raw: bytes) -> Any:
        try:
            return parse_payload(raw) if raw else None
        except ValueError as error:
            raise FileFormatError(
                f"{self.info.path}: a payload is not JSON; build the index again"
            ) from error


def open_index(path: str | os.PathLike[str], *, half_life: float | None = None) -> Index:
    """Open an index and check all of it.

    Args:
        path: the index's folder, or one ``*.mrx`` file.
        half_life: days after which what :meth:`Index.select` added has become half of it; None keeps the one that the
            index has, 30 at first.

    Raises:
        NotFoundError: there is no index.
        FileFormatError: a file is damaged, newer than this version, or no segment.
        StoreError: a file cannot be read.
        OutOfRangeError: the half-life is not in 0.01 to 36,500.
        InvalidInputError: an argument has the wrong type.
    """
    if not isinstance(path, str | os.PathLike):
        raise InvalidInputError(f"path must be a string or a path, got {type(path).__name__}")
    path = Path(path)
    if half_life is not None:
        half_life = _read_half_life(half_life)
    with store_errors(f"read the index {path}"):
        try:
            if path.is_dir():
                return Index(LiveIndex(path, half_life), path)
            if not path.exists():
                raise NotFoundError(f"no index at {path}")
            return Index(Layers(folder.open_segment(path)), path)
        except FileNotFoundError:
            raise NotFoundError(f"no index at {path}") from None


def _answers(found: list[_Answer], *, partial: bool) -> Answers[_Answer]:
    answers = Answers(found)
    if partial:
        answers.partial = True
    return answers


def _read_half_life(given: object) -> float:
    if not isinstance(given, numbers.Real) or isinstance(given, bool):
        raise InvalidInputError(
            f"half_life must be a number of days, 0.01 to 36500, or None; got {type(given).__name__}"
        )
    days = float(given)
    if not 0.01 <= days <= 36_500:
        raise OutOfRangeError(f"half_life must be 0.01 to 36500 days, got {days}")
    return days


def _check_limit(limit: object) -> None:
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise InvalidInputError(f"limit must be an integer, got {type(limit).__name__}")
    if not 1 <= limit <= LIMIT_MAX:
        raise OutOfRangeError(f"limit must be 1 to {LIMIT_MAX}")


def _check_fuzzy(fuzzy: object) -> None:
    if fuzzy == "auto" or (type(fuzzy) is int and fuzzy in (0, 1, 2)):
        return
    raise InvalidInputError("fuzzy must be 'auto', 0, 1 or 2")


def _read_names(given: object) -> tuple[str, ...]:
    names: object = (given,) if isinstance(given, str) else given
    if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise InvalidInputError(_WANTED_NAMES)
    return tuple(names)


def _query(
    prefix: object, limit: int, fuzzy: Fuzzy, context: Names, prefer: Names
) -> tuple[bytes, int, int, Collection[str], Collection[str]]:
    """Return a query as C takes it."""
    if not isinstance(prefix, str):
        raise InvalidInputError(f"the prefix must be a string, got {type(prefix).__name__}")
    _check_limit(limit)
    _check_fuzzy(fuzzy)
    # No string is longer in code points than in bytes, so that a huge one is not even encoded.
    raw = prefix[: QUERY_MAX + 1].encode("utf-8", "surrogatepass")
    names = [_read_names(given) for given in (context, prefer)]
    if sum(map(len, names)) > trie.TAGS_MAX:
        raise InvalidInputError(_WANTED_NAMES)
    return raw, limit, trie.EDITS_AUTO if fuzzy == "auto" else fuzzy, names[0], names[1]
