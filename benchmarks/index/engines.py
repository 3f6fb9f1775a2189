"""Contestants: ours, and whatever completes prefixes, can be had from PyPI or Debian, and is on this machine.

Each is a function ``(data, folder) -> Engine``. What finds the top 10 by score only by looking at all that begins so
gets the shortest such loop here. An ImportError or OSError means: not on this machine.
"""

from __future__ import annotations

import bisect
import heapq
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import mariana
from benchmarks.index.data import DataSet
from mariana.autocomplete import Fuzzy
from mariana.reference import rank

LIMIT = 10
LAST = "\U0010ffff"
LUCENE = Path("/usr/share/java")
LUCENE_JARS = ("core", "suggest", "analyzers-common")

Complete = Callable[[str], list[str]]
"""May have ``seconds``, those of its last call, when it measures that itself."""


@dataclass
class Engine:
    """A contestant that holds a data set.

    Attributes:
        complete: the texts for what was typed, best first; at most ``LIMIT``.
        cut_short: whether an answer with so many errors forgiven hit a bound on the work.
        forgiving: the same with so many typing errors forgiven, or with as many as it sees fit ("auto").
        nbytes: its files, scores included; for what has no file, its memory.
        build: seconds from Python objects to files.
        raw: for those who want bytes, not objects: only timed.
    load: opens the files again, ready to complete; None for what has none.
        close: ends what it started.
    """

    complete: Complete
    nbytes: int
    build: float
    forgiving: dict[Fuzzy, Complete] = field(default_factory=dict)
    raw: Callable[[str], object] | None = None
    cut_short: Callable[[str, int], bool] = lambda _typed, _edits: False
    load: Callable[[], object] | float | None = None
    close: Callable[[], object] = lambda: None


def mariana_index(data: DataSet, folder: Path) -> Engine:
    start = time.perf_counter()
    path = mariana.build_index(folder, data.entries.items(), any_word=False)
    seconds = time.perf_counter() - start
    index = mariana.open_index(path)
    reader = index._opened().reader  # noqa: SLF001 - tells what the public call leaves out

    def complete(fuzzy: Fuzzy) -> Complete:
        return lambda typed: [completion.text for completion in index.complete(typed, LIMIT, fuzzy)]

    modes: tuple[Fuzzy, ...] = (1, 2, "auto")
    return Engine(
        complete(0),
        index.nbytes,
        seconds,
        {fuzzy: complete(fuzzy) for fuzzy in modes},
        raw=lambda typed: index.complete_json(typed, LIMIT, 0),
        cut_short=lambda typed, edits: reader.complete(typed.encode(), LIMIT, edits)[1],
        load=lambda: mariana.open_index(path),
        close=index.close,
    )


def marisa(data: DataSet, folder: Path) -> Engine:
    import marisa_trie

    start = time.perf_counter()
    keys = marisa_trie.Trie(data.entries)
    scores = array("d", [0.0]) * len(keys)
    for text, score in data.entries.items():
        scores[keys[text]] = score
    keys.save(str(folder / "marisa"))
    (folder / "scores").write_bytes(scores.tobytes())
    seconds = time.perf_counter() - start

    def complete(typed: str) -> list[str]:
        return _best((key, scores[keys[key]]) for key in keys.iterkeys(typed))

    def load() -> object:
        return marisa_trie.Trie().mmap(str(folder / "marisa")), array("d", (folder / "scores").read_bytes())

    return Engine(complete, _size(folder), seconds, load=load)


def dawg2(data: DataSet, folder: Path) -> Engine:
    import dawg

    start = time.perf_counter()
    texts = sorted(data.entries)
    words = dawg.IntCompletionDAWG((text, _whole(data.entries[text])) for text in texts)
    words.save(str(folder / "dawg"))
    seconds = time.perf_counter() - start
    return Engine(
        lambda typed: _best(words.items(typed)),
        _size(folder),
        seconds,
        load=lambda: dawg.IntCompletionDAWG().load(str(folder / "dawg")),
    )


def ducer(data: DataSet, folder: Path) -> Engine:
    import mmap

    import ducer

    start = time.perf_counter()
    pairs = sorted((text.encode(), _whole(score)) for text, score in data.entries.items())
    ducer.Map.build(folder / "fst", pairs)
    seconds = time.perf_counter() - start

    def load() -> ducer.Map:
        with (folder / "fst").open("rb") as file:
            return ducer.Map(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    words = load()
    return Engine(
        lambda typed: _best((text.decode(), score) for text, score in words.starts_with(typed.encode())),
        _size(folder),
        seconds,
        load=load,
    )


def sqlite(data: DataSet, folder: Path) -> Engine:
    start = time.perf_counter()
    database = sqlite3.connect(folder / "sqlite.db")
    database.execute("CREATE TABLE entries (text TEXT PRIMARY KEY, score REAL) WITHOUT ROWID")
    database.executemany("INSERT INTO entries VALUES (?, ?)", sorted(data.entries.items()))
    database.commit()
    seconds = time.perf_counter() - start
    query = f"SELECT text FROM entries WHERE text >= ? AND text < ? ORDER BY score DESC, length(text), text LIMIT {LIMIT}"
    return Engine(
        lambda typed: [text for (text,) in database.execute(query, (typed, typed + LAST))],
        _size(folder),
        seconds,
        load=lambda: sqlite3.connect(folder / "sqlite.db").execute(query, ("a", "a")),
        close=database.close,
    )


def sqlite_fts5(data: DataSet, folder: Path) -> Engine:
    """One token a text, row number = rank, so that matches come best first; prefixes to 4 letters have their index."""
    start = time.perf_counter()
    database = sqlite3.connect(folder / "fts5.db")
    database.execute(
        "CREATE VIRTUAL TABLE entries USING fts5(text, prefix='1 2 3 4', detail=none, columnsize=0, "
        "tokenize=\"unicode61 remove_diacritics 0 categories 'L* N* M* P* S* Z* Co'\")"
    )
    database.executemany("INSERT INTO entries (text) VALUES (?)", ((text,) for text in data.ranked))
    database.execute("INSERT INTO entries (entries) VALUES ('optimize')")
    database.commit()
    database.execute("VACUUM")
    seconds = time.perf_counter() - start
    query = f"SELECT text FROM entries WHERE entries MATCH ? ORDER BY rowid LIMIT {LIMIT}"

    def complete(typed: str) -> list[str]:
        return [text for (text,) in database.execute(query, ('"' + typed.replace('"', '""') + '"*',))]

    return Engine(
        complete,
        _size(folder),
        seconds,
        load=lambda: sqlite3.connect(folder / "fts5.db").execute(query, ("a",)),
        close=database.close,
    )


def sorted_list(data: DataSet, folder: Path) -> Engine:
    del folder
    start = time.perf_counter()
    texts = sorted(data.entries)
    pairs = [(text, data.entries[text]) for text in texts]
    seconds = time.perf_counter() - start

    def complete(typed: str) -> list[str]:
        low = bisect.bisect_left(texts, typed)
        return _best(pairs[low : bisect.bisect_left(texts, typed + LAST, low)])

    size = sum(
        sys.getsizeof(text) + sys.getsizeof(pair) + 24 + 16 for text, pair in zip(texts, pairs, strict=True)
    )
    return Engine(complete, size, seconds)


def completype(data: DataSet, folder: Path) -> Engine:
    """Finds parts of words and forgives errors in every call, and blends that in its own way."""
    import completype as peer

    start = time.perf_counter()
    documents = (peer.Document(number, text, data.entries[text]) for number, text in enumerate(data.ranked))
    peer.Segment.build(documents, path=folder / "segment")
    seconds = time.perf_counter() - start

    def load() -> peer.Index:
        return peer.Index([peer.Segment.open(folder / "segment")])

    index = load()

    def complete(typed: str) -> list[str]:
        return [suggestion.text for suggestion in index.complete(typed, LIMIT)]

    return Engine(complete, _size(folder), seconds, {"auto": complete}, load=load)


def tantivy(data: DataSet, folder: Path) -> Engine:
    """Collects every match and orders by a column."""
    import tantivy as peer

    start = time.perf_counter()
    builder = peer.SchemaBuilder()
    builder.add_text_field("text", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_integer_field("best", fast=True)
    schema = builder.build()
    index = peer.Index(schema, path=str(folder))
    writer = index.writer(heap_size=256_000_000, num_threads=1)
    for place, text in enumerate(data.ranked):
        writer.add_document(peer.Document(text=text, best=len(data.ranked) - place))
    writer.commit()
    writer.wait_merging_threads()
    seconds = time.perf_counter() - start
    index.reload()
    searcher = index.searcher()

    def search(query: peer.Query) -> list[str]:
        hits = searcher.search(query, LIMIT, count=False, order_by_field="best").hits
        return [searcher.doc(address)["text"][0] for _, address in hits]

    def complete(typed: str) -> list[str]:
        return search(peer.Query.regex_query(schema, "text", re.escape(typed) + ".*"))

    def forgiving(distance: Fuzzy) -> Complete:
        return lambda typed: search(
            peer.Query.fuzzy_term_query(
                schema, "text", typed, distance, transposition_cost_one=True, prefix=True
            )
        )

    def load() -> object:
        return peer.Index.open(str(folder)).searcher()

    modes: tuple[Fuzzy, ...] = (1, 2)
    return Engine(complete, _size(folder), seconds, {mode: forgiving(mode) for mode in modes}, load=load)


class _Lucene:
    """A suggester in a Java process of its own (benchmarks/peers/LuceneSuggest.java), which measures its time itself."""

    def __init__(self, kind: str, data: DataSet, folder: Path) -> None:
        jars = [jar for part in LUCENE_JARS for jar in LUCENE.glob(f"lucene-{part}-[89].*.jar")]
        if len(jars) < len(LUCENE_JARS) or not shutil.which("java"):
            raise FileNotFoundError("java and Debian's package liblucene8-java")
        entries, stored = folder / "entries.tsv", folder / "stored" / kind
        stored.parent.mkdir(exist_ok=True)
        with entries.open("w", encoding="utf-8") as file:
            file.writelines(f"{text}\t{_whole(score)}\n" for text, score in data.entries.items())
        source = Path(__file__).parents[1] / "peers" / "LuceneSuggest.java"
        command = ["java", "-cp", ":".join(map(str, jars)), source, kind, entries, stored]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, encoding="utf-8")
        self.build, self.load = map(float, self._line().split())
        self.nbytes = stored.stat().st_size
        self.seconds = 0.0
        for typed in data.keystrokes()[:2_000]:  # until the compiler has seen it
            self(typed)

    def __call__(self, typed: str) -> list[str]:
        assert self._process.stdin
        self._process.stdin.write(f"{typed}\n")
        self._process.stdin.flush()
        nanoseconds, *texts = self._line().rstrip("\n").split("\t")
        self.seconds = int(nanoseconds) / 1e9
        return texts

    def _line(self) -> str:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return line
        raise ChildProcessError("LuceneSuggest.java has ended; it needs a JDK")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def lucene(data: DataSet, folder: Path) -> Engine:
    """WFSTCompletionLookup, and FuzzySuggester for errors, of which none is forgiven in the first letter."""
    exact = _Lucene("exact", data, folder)
    fuzzy: dict[Fuzzy, Complete] = {}
    peers = [exact]
    modes: tuple[Fuzzy, ...] = (1, 2)
    for edits in modes:
        peers.append(_Lucene(str(edits), data, folder))
        fuzzy[edits] = peers[-1]
    return Engine(
        exact,
        exact.nbytes,
        exact.build,
        fuzzy,
        load=exact.load / 1e3,
        close=lambda: [peer.close() for peer in peers],
    )


def redis(data: DataSet, folder: Path) -> Engine:
    """Texts in a sorted set, scores in a hash, both asked over a Unix socket; the best ten picked here."""
    import redis as peer

    program = shutil.which("redis-server")
    if not program:
        raise FileNotFoundError("redis-server")
    path = folder / "socket"
    command = [
        program,
        "--port",
        "0",
        "--unixsocket",
        path,
        "--dir",
        folder,
        "--save",
        "",
        "--daemonize",
        "no",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for(path)
        client = peer.Redis(unix_socket_path=str(path), decode_responses=True)
        before = client.info("memory")["used_memory"]
        start = time.perf_counter()
        pipeline = client.pipeline(transaction=False)
        for part in _parts(data.entries.items(), 1000):
            pipeline.zadd("texts", dict.fromkeys((text for text, _ in part), 0))
            pipeline.hset("scores", mapping=dict(part))
        pipeline.execute()
        seconds = time.perf_counter() - start
        size = client.info("memory")["used_memory"] - before
    except BaseException:
        process.kill()
        process.wait()
        raise

    def complete(typed: str) -> list[str]:
        texts = client.zrangebylex("texts", f"[{typed}", f"({typed}{LAST}")
        found = []
        for part in _parts(texts, 10_000):
            found += zip(part, map(float, client.hmget("scores", part)), strict=True)
        return _best(found)

    def close() -> None:
        client.close()
        process.terminate()
        process.wait()

    return Engine(complete, size, seconds, close=close)


ENGINES: dict[str, Callable[[DataSet, Path], Engine]] = {
    "mariana": mariana_index,
    "sorted list": sorted_list,
    "marisa-trie": marisa,
    "DAWG2": dawg2,
    "ducer": ducer,
    "SQLite": sqlite,
    "SQLite FTS5": sqlite_fts5,
    "tantivy": tantivy,
    "completype": completype,
    "Lucene": lucene,
    "Redis": redis,
}


def _best(pairs: Iterable[tuple[str, float]]) -> list[str]:
    return [text for text, _ in heapq.nsmallest(LIMIT, pairs, key=rank)]


def _whole(score: float) -> int:
    if score != int(score):
        raise ValueError(f"{score} is not whole")
    return int(score)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _parts(items: Iterable[Any], length: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while part := list(islice(iterator, length)):
        yield part


def _wait_for(path: Path) -> None:
    for _ in range(200):
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on {path}")
