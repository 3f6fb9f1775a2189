# ruff: noqa: RUF001 - other scripts are what is tested
"""The C trie against its slow, obvious twin, on random dictionaries."""

import struct
import unicodedata
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from mariana import reference
from mariana._binding import trie
from mariana.errors import FileFormatError, InvalidInputError

FORBIDDEN = {chr(i) for i in [*range(32), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F]} | {
    chr(i) for i in [*range(0x2028, 0x202F), *range(0x2066, 0x206A)]
}

# Few letters, so that keys share prefixes, end inside each other, and fold to the same.
NARROW = "abAB áÁ\u0301-đĐßsŞﬀf ½İıΣς한글か゛が"
letters = st.one_of(
    st.sampled_from(NARROW),
    st.sampled_from("ab"),
    st.characters(exclude_categories=("Cs", "Cc", "Cn"), exclude_characters="".join(FORBIDDEN)),
)
texts = st.one_of(
    st.text(letters, min_size=1, max_size=8),
    st.text(st.sampled_from("ab"), min_size=1, max_size=5),
    st.builds(
        lambda n, tail: "x" * n + tail, st.integers(250, 330), st.text(st.sampled_from("xyz"), max_size=3)
    ),
)
scores = st.one_of(
    st.integers(0, 3),
    st.integers(0, 2**53),
    st.floats(0, 3),
    st.floats(0, allow_infinity=False, allow_nan=False),
)
dictionaries = st.lists(st.tuples(texts, scores), max_size=40)


def build(entries: list[tuple[str, float]]) -> trie.Segment:
    file, _ = trie.build_segment(
        [text.encode() for text, _ in entries], [score for _, score in entries], [b""] * len(entries)
    )
    return trie.Segment(bytes(file), "test")


def covered(hit: trie.Hit) -> int:
    """Return how many code points at the start of a text are highlighted."""
    if not hit.highlights:
        return 0
    ((start, end),) = hit.highlights
    assert start == 0 < end
    return end


def usable(entries: list[tuple[str, float]]) -> list[tuple[str, float]]:
    return [entry for entry in entries if reference.fold(entry[0]).strip(" ")]


@settings(max_examples=400, deadline=None)
@given(entries=dictionaries, limit=st.integers(1, 100), data=st.data())
@example(entries=[("ab", 1), ("abc", 2), ("a", 1), ("AB", 1), ("áb", 1)], limit=3, data=None)
def test_top_k_equals_brute_force(
    entries: list[tuple[str, float]], limit: int, data: st.DataObject | None
) -> None:
    entries = usable(entries)
    segment = build(entries)
    prefixes = {"", "a", "A", "á", "ab", "x" * 252}
    if data is not None and entries:
        text = data.draw(st.sampled_from([text for text, _ in entries]))
        prefixes |= {text[:i] for i in range(min(len(text), 9) + 1)}
        prefixes.add(data.draw(st.text(letters, max_size=4)))
        if len(text.encode()) <= trie.QUERY_MAX:
            prefixes.add(text)
    for prefix in prefixes:
        if len(prefix.encode()) > trie.QUERY_MAX or len(reference.fold(prefix).encode()) > trie.QUERY_MAX:
            continue
        hits, _ = segment.complete(prefix.encode(), limit, 0)
        assert [(hit.text.decode(), hit.score) for hit in hits] == reference.complete(entries, prefix, limit)
        assert [covered(hit) for hit in hits] == [reference.highlight(h.text.decode(), prefix) for h in hits]


def varint(file: bytes, at: int) -> tuple[int, int]:
    """Read a number: itself, and where it ends."""
    value = shift = 0
    while True:
        value |= (file[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if file[at - 1] < 0x80:
            return value, at


def places(file: bytes) -> tuple[list[int], int]:
    """Return where each record without a payload begins, and how long all are."""
    (length,), (width,) = struct.unpack_from("<Q", file, 80), struct.unpack_from("<I", file, 92)
    found, at = [], 128
    while at < 128 + length:
        found.append(at - 128)
        flags, wide = file[at], 2 if file[at] & 2 else 1
        at += 1 + wide + int.from_bytes(file[at + 1 : at + 1 + wide], "little")
        if flags & 1:
            branches, at = varint(file, at)
            at += branches * (wide + 1 + width)
        at = at + 8 if flags & 4 else varint(file, at)[1]
        text_bytes, at = varint(file, at)
        at += text_bytes
    return found, length


def expect_typed(entries: list[tuple[str, float]], prefixes: set[str], limits: set[int]) -> None:
    """Compare answers with the twin, for each number of edits."""
    file, _ = trie.build_segment(
        [t.encode() for t, _ in entries], [s for _, s in entries], [b""] * len(entries)
    )
    file = bytes(file)
    segment = trie.Segment(file, "test")
    unique: dict[str, float] = {}
    for text, score in entries:
        unique[text] = max(score, unique.get(text, score))
    ordered = sorted(unique.items(), key=reference.rank)
    found, length = places(file)
    assert len(found) == len(ordered)
    for prefix in prefixes:
        key = reference.fold(prefix)
        if len(prefix.encode()) > trie.QUERY_MAX or len(key.encode()) > trie.QUERY_MAX:
            continue
        automatic = 0 if len(key) < 4 else 1 if len(key) < 8 else 2
        for edits in (0, 1, 2, trie.EDITS_AUTO):
            allowed = automatic if edits == trie.EDITS_AUTO else edits
            expected = reference.complete_typed(ordered, found, length, prefix, max(limits), allowed)
            for limit in limits:
                hits, partial = segment.complete(prefix.encode(), limit, edits)
                assert not partial
                got = [(hit.text.decode(), hit.score, hit.edits, covered(hit)) for hit in hits]
                assert got == expected[:limit], (prefix, edits, limit)


def mistype(data: st.DataObject, text: str) -> str:
    """Make up to three typing errors."""
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(text)))
        extra = data.draw(letters)
        text = data.draw(
            st.sampled_from(
                [
                    text[:at] + text[at + 1 :],
                    text[:at] + extra + text[at:],
                    text[:at] + extra + text[at + 1 :],
                    text[:at] + text[at : at + 2][::-1] + text[at + 2 :],
                ]
            )
        )
    return text


@settings(max_examples=400, deadline=None)
@given(entries=dictionaries, limit=st.integers(1, 100), data=st.data())
def test_typing_errors_equal_brute_force(
    entries: list[tuple[str, float]], limit: int, data: st.DataObject
) -> None:
    entries = usable(entries)
    prefixes = {"", "a", "ba", data.draw(st.text(letters, max_size=9)), "x" * 64, "y" + "x" * 63, "x" * 65}
    if entries:
        text = data.draw(st.sampled_from([text for text, _ in entries]))
        prefixes.add(mistype(data, text[: data.draw(st.integers(0, 12))]))
    expect_typed(entries, prefixes, {1, limit})


@settings(max_examples=25, deadline=None)
@given(
    entries=st.lists(
        st.tuples(st.text(st.sampled_from("abcé東"), min_size=1, max_size=10), st.integers(0, 50)),
        min_size=100,
        max_size=600,
        unique_by=lambda entry: entry[0],
    ),
    data=st.data(),
)
def test_typing_errors_equal_brute_force_where_ranks_are_far_apart(
    entries: list[tuple[str, float]], data: st.DataObject
) -> None:
    prefixes = {mistype(data, data.draw(st.sampled_from([t for t, _ in entries]))[:8]) for _ in range(3)}
    expect_typed(entries, prefixes, {1, 10, 100})


@pytest.mark.parametrize(
    ("typed", "key", "edits", "length"),
    [
        ("saigon", "saigon river", 0, 6),
        ("siagon", "saigon", 1, 6),
        ("aigon", "saigon", 1, 6),
        ("xsaigon", "saigon", 1, 6),
        ("saigan", "saigon", 1, 6),
        ("ca", "abc", 1, 1),
        ("ca", "zzabc", 2, 0),
        ("東亰", "東京", 1, 1),
        ("", "abc", 0, 0),
        ("abc", "", 3, 0),
    ],
)
def test_the_twin_by_example(typed: str, key: str, edits: int, length: int) -> None:
    assert reference.prefix_edits(typed, key) == (edits, length)


@settings(max_examples=100, deadline=None)
@given(entries=dictionaries, seed=st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_count(entries: list[tuple[str, float]], seed: object) -> None:
    shuffled = list(entries)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types it as object

    def file(given: list[tuple[str, float]]) -> bytes:
        return bytes(
            trie.build_segment([t.encode() for t, _ in given], [s for _, s in given], [b""] * len(given))[0]
        )

    assert file(entries) == file(shuffled)


def test_folding_is_the_twin_for_every_code_point() -> None:
    newer = tuple(map(int, unicodedata.unidata_version.split("."))) > (14, 0, 0)
    wrong = []
    for number in range(0x110000):
        point = chr(number)
        if 0xD800 <= number <= 0xDFFF or point in FORBIDDEN:
            continue
        folded = trie.fold("x" + point)[1:]
        expected = reference.fold("x" + point)[1:]
        if folded != expected and not (newer and folded == point):
            wrong.append((hex(number), folded, expected))
    assert not wrong


@settings(max_examples=300, deadline=None)
@given(text=st.text(letters, max_size=40))
def test_folding_is_the_twin_for_texts_and_changes_nothing_twice(text: str) -> None:
    folded = trie.fold(text)
    assert folded == reference.fold(text)
    assert trie.fold(folded) == folded


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Đường Tâm Nguyễn", "duong tam nguyen"),
        ("ÆŒØŁẞĦŦİIı", "aeoeolsshtiii"),
        ("  São\u00a0 Paulo ", "sao paulo "),
        ("Xi’an", "xi'an"),
        ("Düsseldorf", "dusseldorf"),
        ("Du\u0308sseldorf", "dusseldorf"),
        ("Москва", "москва"),
        ("Ёлка", "елка"),
        ("Άργος", "αργοσ"),
        ("ﷺ", "صلى الله عليه وسلم"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("한", "\u1112\u1161\u11ab"),
        ("हिन्दी", "हिन्दी"),
        ("ไทย", "ไทย"),
        ("北京", "北京"),
        ("مُحَمَّد", "محمد"),
    ],
)
def test_folding_by_example(text: str, key: str) -> None:
    assert trie.fold(text) == key


@pytest.mark.parametrize("point", sorted(FORBIDDEN))
def test_control_and_direction_marks_are_refused_everywhere(point: str) -> None:
    with pytest.raises(InvalidInputError):
        build([("saigon", 1)]).complete(f"sa{point}".encode(), 10, 0)
    _, verdicts = trie.build_segment([f"sa{point}".encode()], [1.0], [b""])
    assert verdicts[0] < 0


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xe2\x82",
        b"\xf4\x90\x80\x80",
        b"a\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xe0\x80\xaf",
    ],
)
def test_broken_utf8_is_refused_everywhere(raw: bytes) -> None:
    with pytest.raises(InvalidInputError):
        build([("saigon", 1)]).complete(raw, 10, 0)
    _, verdicts = trie.build_segment([raw, b"ok"], [1.0, 1.0], [b"", raw])
    assert (verdicts < 0).all()


# ---- Several segments as one ------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(entries=dictionaries, limit=st.integers(1, 100), data=st.data())
def test_a_reader_answers_as_one_segment(
    entries: list[tuple[str, float]], limit: int, data: st.DataObject
) -> None:
    entries = [entry for entry in usable(entries) if len(entry[0].encode()) < 200]
    count = data.draw(st.integers(1, 4))
    parts: list[list[tuple[str, float]]] = [[] for _ in range(count)]
    for entry in entries:
        parts[data.draw(st.integers(0, count - 1))].append(entry)
    segments = [build(part) for part in parts]
    living: dict[str, tuple[str, float]] = {}
    dead: list[set[int]] = [set() for _ in segments]
    newest: dict[str, int] = {}
    for number, part in enumerate(parts):
        for text, score in part:
            if newest.get(text) == number:
                living[text] = max(living[text], (text, score))
                continue
            if text in newest:  # replaced by a newer segment
                place = segments[newest[text]].find(text.encode())
                assert place is not None
                dead[newest[text]].add(place)
            newest[text], living[text] = number, (text, score)
    for text in [text for text in living if data.draw(st.integers(0, 4)) == 0]:  # deleted
        place = segments[newest[text]].find(text.encode())
        assert place is not None
        dead[newest[text]].add(place)
        del living[text]
    reader = trie.Reader(segments, dead)
    one = build(list(living.values()))
    assert reader.entries == len(living) == one.entries
    for prefix in {"", "a", "ab", data.draw(st.text(letters, max_size=3))}:
        assert reader.complete(prefix.encode(), limit, 0) == one.complete(prefix.encode(), limit, 0)


def test_a_text_is_found_by_its_exact_form() -> None:
    segment = build([("São Paulo", 1), ("Sao Paulo", 2), ("sao paulo", 3), ("Saigon", 1)])
    places = [segment.find(text.encode()) for text in ("São Paulo", "Sao Paulo", "sao paulo", "Saigon")]
    assert None not in places
    assert len(set(places)) == 4
    for text in ("SAO PAULO", "São", "", "x" * 2000, "\n"):
        assert segment.find(text.encode()) is None
    assert segment.find(b"\xff") is None


# ---- Damaged and hostile files ------------------------------------------------------------------------------

SMALL = [
    ("Saigon", 5),
    ("sai", 2),
    ("SAI", 2),
    ("Sào Paulo", 0.5),
    ("sa", 0),
    ("東京", 9),
    ("東", 9),
    ("y" * 300, 1),
    ("y" * 299, 1),
]


def small_file() -> bytes:
    file, _ = trie.build_segment(
        [t.encode() for t, _ in SMALL], [s for _, s in SMALL], [b'{"a":1}', *[b""] * (len(SMALL) - 1)]
    )
    return bytes(file)


def test_every_flipped_bit_is_refused() -> None:
    file = small_file()
    for at in range(len(file)):
        for bit in range(8):
            damaged = bytearray(file)
            damaged[at] ^= 1 << bit
            with pytest.raises(FileFormatError):
                trie.Segment(bytes(damaged), "test")


def test_every_truncation_and_extension_is_refused() -> None:
    file = small_file()
    for length in range(len(file)):
        with pytest.raises(FileFormatError):
            trie.Segment(file[:length], "test")
    with pytest.raises(FileFormatError):
        trie.Segment(file + b"\0", "test")


def crc_of_byte(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


CRC_TABLE = [crc_of_byte(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def with_checksums(file: bytearray) -> bytes:
    """Repair the checksums of a file with one section."""
    offset, length = struct.unpack_from("<QQ", file, 72)
    if offset + length <= len(file):
        struct.pack_into("<I", file, 88, crc32c(bytes(file[offset : offset + length])))
    struct.pack_into("<I", file, 40, 0)
    struct.pack_into("<I", file, 40, crc32c(bytes(file[:96])))
    return bytes(file)


def test_the_checksum_is_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, B.4
    assert with_checksums(bytearray(small_file())) == small_file()


def answers(segment: trie.Segment) -> None:
    for prefix in (b"", b"s", b"sa", b"sai", b"y" * 250, "東".encode(), b"z"):
        for edits in (1, 2):
            typed, _ = segment.complete(prefix, 100, edits)
            assert len(typed) <= segment.entries
            for hit in typed:
                assert covered(hit) <= len(hit.text.decode())
        hits, _ = segment.complete(prefix, 100, 0)
        assert len(hits) <= segment.entries
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        for hit in hits:
            hit.text.decode()


def test_a_changed_byte_with_repaired_checksums_is_refused_or_harmless() -> None:
    file = small_file()
    refused = 0
    for at in range(128, len(file)):
        for value in (0, file[at] ^ 1, 0xFF):
            damaged = bytearray(file)
            damaged[at] = value
            try:
                segment = trie.Segment(with_checksums(damaged), "test")
            except FileFormatError:
                refused += 1
            else:
                answers(segment)
    assert refused > 100


@pytest.mark.parametrize(
    ("field", "layout", "values"),
    [
        (8, "<I", [0, 2, 2**31, 2**32 - 1]),  # format version
        (12, "<I", [0, 2, 2**32 - 1]),  # fold version
        (16, "<Q", [0, 1, 2**31, 2**32, 2**63, 2**64 - 1]),  # file bytes
        (24, "<Q", [0, 1, 8, 10, 2**31, 2**32 - 1, 2**63, 2**64 - 1]),  # entries
        (32, "<I", [0, 2, 16, 17, 2**31, 2**32 - 1]),  # sections
        (36, "<I", [1, 2**31]),  # flags
        (44, "<I", [1]),  # reserved
        (64, "<I", [0, 2, 2**32 - 1]),  # section id
        (68, "<I", [1, 2, 2**31]),  # section flags
        (72, "<Q", [0, 64, 127, 129, 192, 2**32, 2**63, 2**64 - 64, 2**64 - 1]),  # section offset
        (80, "<Q", [0, 1, 2**32, 2**63, 2**64 - 128, 2**64 - 1]),  # section length
        (92, "<I", [0, 2, 4, 5, 2**32 - 1]),  # width
    ],
)
def test_header_fields_are_checked_behind_the_checksum(field: int, layout: str, values: list[int]) -> None:
    for value in values:
        damaged = bytearray(small_file())
        struct.pack_into(layout, damaged, field, value)
        try:
            segment = trie.Segment(with_checksums(damaged), "test")
        except FileFormatError:
            continue
        assert (field, value) == (68, 1), "only the mark of an optional section changes nothing"
        answers(segment)


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_random_damage_with_repaired_checksums(data: st.DataObject) -> None:
    damaged = bytearray(small_file())
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(128, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        segment = trie.Segment(with_checksums(damaged), "test")
    except FileFormatError:
        return
    answers(segment)


def test_the_golden_file_still_opens(request: pytest.FixtureRequest) -> None:
    path = Path(request.path).parent / "golden" / "segment-v1.mrx"
    file = path.read_bytes()
    answers(trie.Segment(file, "golden"))
    assert file == small_file(), "the same input gives the same bytes, from version to version"
