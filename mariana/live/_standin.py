"""Development stand-in for the reader over several segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mariana._binding import trie


def _varint(b: bytes, i: int) -> tuple[int, int]:
    v = s = 0
    while True:
        c = b[i]
        i += 1
        v |= (c & 127) << s
        s += 7
        if c < 128:
            return v, i


def records(segment: trie.Segment) -> Iterator[tuple[int, bytes, float, bytes]]:
    import struct

    b = bytes(segment._file)
    at, length = struct.unpack_from("<QQ", b, 72)
    width = struct.unpack_from("<I", b, 92)[0]
    i, end = at, at + length
    while i < end:
        place = i - at
        flags = b[i]
        w = 2 if flags & 2 else 1
        n = int.from_bytes(b[i + 1 : i + 1 + w], "little")
        i += 1 + w + n
        if flags & 1:
            n, i = _varint(b, i)
            i += n * (w + 1 + width)
        if flags & 4:
            score = struct.unpack_from("<d", b, i)[0]
            i += 8
        else:
            v, i = _varint(b, i)
            score = float(v)
        n, i = _varint(b, i)
        text = b[i : i + n]
        i += n
        payload = b""
        if flags & 8:
            n, i = _varint(b, i)
            payload = b[i : i + n]
            i += n
        yield place, text, score, payload


_cache: dict[int, tuple[trie.Segment, dict[bytes, tuple[int, float, bytes]]]] = {}


def table(segment: trie.Segment) -> dict[bytes, tuple[int, float, bytes]]:
    found = _cache.get(id(segment))
    if found is None or found[0] is not segment:
        found = (segment, {t: (p, s, y) for p, t, s, y in records(segment)})
        if len(_cache) > 64:
            _cache.clear()
        _cache[id(segment)] = found
    return found[1]


class Reader:
    def __init__(self, segments: Sequence[trie.Segment], dead: Sequence[frozenset[bytes]]) -> None:
        self.segments, self.dead = segments, dead
        self.entries = sum(s.entries for s in segments) - sum(map(len, dead))
        self.nbytes = sum(s.nbytes for s in segments)

    def complete(self, prefix: bytes, limit: int, edits: int) -> tuple[list[trie.Hit], bool]:
        if len(self.segments) == 1 and not self.dead[0]:
            return self.segments[0].complete(prefix, limit, edits)
        rows = []
        for segment, dead in zip(self.segments, self.dead, strict=True):
            hits, _ = segment.complete(prefix, 100, edits)
            rows += [hit for hit in hits if hit.text not in dead]
        rows.sort(key=lambda hit: (hit.edits, -hit.score, hit.text))
        return rows[:limit], False
