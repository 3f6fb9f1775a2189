# ruff: noqa: RUF001 - other scripts are what is tested
"""The C trie against its slow, obvious twin, on random dictionaries."""

import json
import random
import struct
import unicodedata
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings
from pydantic_core import from_json, to_json

from mariana import reference
from mariana._binding import build as builder
from mariana._binding import trie
from mariana.errors import FileFormatError, InvalidInputError, OutOfRangeError
from mariana.server.schemas import CompleteAnswer

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


Pairs = list[tuple[str, float]]


def build(entries: Pairs, *, any_word: bool = False) -> trie.Segment:
    return trie.Segment(
        builder.build([trie.Entry(text.encode(), score) for text, score in entries], any_word=any_word),
        "test",
    )


def usable(entries: Pairs) -> Pairs:
    return [entry for entry in entries if reference.fold(entry[0]).strip(" ")]


def fits(query: str) -> bool:
    return len(query.encode()) <= trie.QUERY_MAX and len(reference.fold(query).encode()) <= trie.QUERY_MAX


def shown(hits: list[trie.Hit]) -> list[reference.Found]:
    return [reference.Found(hit.text.decode(), hit.score, hit.edits, hit.highlights) for hit in hits]


@settings(max_examples=300, deadline=None)
@given(entries=dictionaries, limit=st.integers(1, 100), data=st.data())
@example(entries=[("ab", 1), ("abc", 2), ("a", 1), ("AB", 1), ("áb", 1)], limit=3, data=None)
def test_top_k_equals_brute_force(entries: Pairs, limit: int, data: st.DataObject | None) -> None:
    entries = usable(entries)
    segment = build(entries)
    prefixes = {"", "a", "A", "ab", "x" * 252}
    if data is not None and entries:
        text = data.draw(st.sampled_from([text for text, _ in entries]))
        prefixes |= {text[:i] for i in range(min(len(text), 9) + 1)} | {text}
        prefixes.add(data.draw(st.text(letters, max_size=4)))
    for prefix in {reference.fold(prefix) for prefix in filter(fits, prefixes)}:  # without accents
        hits, partial = segment.complete(prefix.encode(), limit, 0)
        assert not partial
        assert [(hit.text.decode(), hit.score) for hit in hits] == reference.complete(entries, prefix, limit)
        for hit in hits:
            covered = reference.highlight(hit.text.decode(), prefix)
            assert hit.highlights == (((0, covered),) if covered else ())


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


def expect(
    reader: trie.Reader,
    items: list[reference.Item],
    queries: set[str],
    limits: set[int],
    *,
    any_word: bool,
    camel_case: bool = False,
    contexts: tuple[str, ...] = (),
    prefer: tuple[str, ...] = (),
) -> None:
    """Compare answers with the twin, for each number of edits."""
    for query in filter(fits, queries):
        typed = len(reference.fold(query))
        automatic = 0 if typed < 4 else 1 if typed < 8 else 2
        for edits in (0, 1, 2, trie.EDITS_AUTO):
            expected = reference.search(
                items,
                query,
                max(limits),
                edits=automatic if edits == trie.EDITS_AUTO else edits,
                any_word=any_word,
                camel_case=camel_case,
                contexts=contexts,
                prefer=prefer,
            )
            for limit in limits:
                hits, partial = reader.complete(query.encode(), limit, edits, contexts, prefer)
                assert not partial
                assert shown(hits) == expected[:limit], (query, edits, limit)


WORDS = [
    "new",
    "york",
    "neW-York",
    "são",
    "Paulo",
    "machine",
    "learning",
    "LearnMachine",
    "a.b",
    "x_y",
    "o'brien",
    "東京",
    "tower",
    "łódź",
    "1/2",
    "½",
    "naïve",
]
phrases = st.builds(" ".join, st.lists(st.sampled_from(WORDS), min_size=1, max_size=4))
TAGS = ("city", "land", "river", "été")


@st.composite
def item_lists(draw: st.DrawFn) -> list[reference.Item]:
    """Draw entries with different texts, some of them with contexts, some of them names of one document."""
    items = draw(
        st.lists(
            st.builds(
                reference.Item,
                st.one_of(texts, phrases),
                st.one_of(st.integers(0, 3), scores),
                st.frozensets(st.sampled_from(TAGS), max_size=2),
                st.sampled_from(("", "1", "2", 'é"')),
            ),
            max_size=25,
            unique_by=lambda item: item.text,
        )
    )
    if draw(st.booleans()):
        items = [item._replace(contexts=frozenset()) for item in items]
    if draw(st.booleans()):
        items = [item._replace(id="") for item in items]
    return [item for item in items if reference.fold(item.text).strip(" ")]


def draw_queries(data: st.DataObject, items: list[reference.Item]) -> set[str]:
    queries = {"", "a", data.draw(st.text(letters, max_size=9)), data.draw(phrases)}
    queries |= {"x" * 60, "y" + "x" * 59, "x" * 61}
    if items:
        text = data.draw(st.sampled_from([item.text for item in items]))
        start = data.draw(st.integers(0, len(text) - 1))
        queries.add(mistype(data, text[: data.draw(st.integers(0, 12))]))
        queries.add(text[start : start + 12])
        queries.add(" ".join(data.draw(st.permutations(text.split(" ")))))
        queries |= {f"{text} ", f"{data.draw(st.sampled_from(text.split(' ')))} ", f"{text[start:]}-"}
    return queries


def segment_of(items: list[reference.Item], *, any_word: bool, camel_case: bool = False) -> trie.Segment:
    entries = [
        trie.Entry(item.text.encode(), item.score, b"", item.contexts, item.id.encode()) for item in items
    ]
    return trie.Segment(builder.build(entries, any_word=any_word, camel_case=camel_case), "test")


@settings(max_examples=60, deadline=None)
@given(
    items=item_lists(), limit=st.integers(1, 100), any_word=st.booleans(), camel=st.booleans(), data=st.data()
)
def test_every_way_of_matching_equals_brute_force(
    items: list[reference.Item], limit: int, any_word: bool, camel: bool, data: st.DataObject
) -> None:
    reader = trie.Reader([segment_of(items, any_word=any_word, camel_case=camel)])
    camel = camel and any_word
    queries = draw_queries(data, items)
    expect(reader, items, queries, {1, limit}, any_word=any_word, camel_case=camel)
    few = data.draw(st.tuples(st.sampled_from((*TAGS, "none"))))
    expect(reader, items, queries, {limit}, any_word=any_word, camel_case=camel, contexts=few)
    expect(reader, items, queries, {limit}, any_word=any_word, camel_case=camel, prefer=few)


@settings(max_examples=20, deadline=None)
@given(
    entries=st.lists(
        st.tuples(st.text(st.sampled_from("abcé東"), min_size=1, max_size=10), st.integers(0, 50)),
        min_size=100,
        max_size=400,
        unique_by=lambda entry: entry[0],
    ),
    data=st.data(),
)
def test_typing_errors_equal_brute_force_where_ranks_are_far_apart(
    entries: Pairs, data: st.DataObject
) -> None:
    queries = {mistype(data, data.draw(st.sampled_from([t for t, _ in entries]))[:8]) for _ in range(2)}
    items = [reference.Item(*entry) for entry in entries]
    expect(trie.Reader([build(entries)]), items, queries, {1, 10, 100}, any_word=False)


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
        return bytes(builder.build_segment([t.encode() for t, _ in given], [s for _, s in given])[0])

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
    _, verdicts = builder.build_segment([f"sa{point}".encode()], [1.0], [b""])
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
    _, verdicts = builder.build_segment([raw, b"ok"], [1.0, 1.0], [b"", raw])
    assert (verdicts < 0).all()


# ---- Several segments as one ------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(items=item_lists(), limit=st.integers(1, 100), any_word=st.booleans(), data=st.data())
def test_a_reader_answers_as_one_segment(  # noqa: C901 - one story
    items: list[reference.Item], limit: int, any_word: bool, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, 4))
    parts: list[dict[str, reference.Item]] = [{} for _ in range(count)]
    for item in items:  # some are there several times, with other scores
        for number in data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=2)):
            parts[number][item.text] = item._replace(score=data.draw(st.one_of(st.just(item.score), scores)))
    segments = [segment_of(list(part.values()), any_word=any_word) for part in parts]
    dead: list[set[int]] = [set() for _ in segments]
    living: dict[str, reference.Item] = {}

    def bury(text: str, numbers: range) -> None:
        for number in numbers:
            if text in parts[number]:
                place = segments[number].find(text.encode())
                assert place is not None
                dead[number].add(place)

    for number, part in enumerate(parts):
        for text, item in part.items():
            bury(text, range(number))
            living[text] = item
    for text in [text for text in living if data.draw(st.integers(0, 4)) == 0]:
        del living[text]
        bury(text, range(count))
    older = data.draw(
        st.integers(0, count)
    )  # a reader of so many of them, made when fewer were dead, to stand on
    settled = (
        trie.Reader(
            segments[:older], [{p for p in some if data.draw(st.booleans())} for some in dead[:older]]
        )
        if older
        else None
    )
    reader = trie.Reader(segments, dead, settled)
    one = segment_of(list(living.values()), any_word=any_word)
    assert reader.entries == len(living) == one.entries
    queries = draw_queries(data, items)
    expect(reader, list(living.values()), queries, {1, limit}, any_word=any_word)
    for query in filter(fits, queries):
        for edits in (0, trie.EDITS_AUTO):
            assert reader.complete_json(query.encode(), limit, edits) == trie.Reader([one]).complete_json(
                query.encode(), limit, edits
            )


@settings(max_examples=100, deadline=None)
@given(items=item_lists(), any_word=st.booleans())
def test_entries_come_back_as_they_were_given(items: list[reference.Item], any_word: bool) -> None:
    given = {item.text: item for item in items}
    found = list(segment_of(items, any_word=any_word))
    assert [(e.text.decode(), e.score) for e in found] == sorted(
        ((item.text, item.score) for item in items), key=reference.rank
    )
    for entry in found:
        assert frozenset(entry.contexts) == given[entry.text.decode()].contexts
        assert entry.id.decode() == given[entry.text.decode()].id
        assert entry.payload == b""


@settings(max_examples=100, deadline=None)
@given(items=item_lists(), any_word=st.booleans(), data=st.data())
def test_a_segment_read_as_columns_and_built_again_is_the_same(
    items: list[reference.Item], any_word: bool, data: st.DataObject
) -> None:
    segment = segment_of(items, any_word=any_word)
    gone = data.draw(st.sets(st.sampled_from(range(len(items))))) if items else set()
    places = [segment.find(items[number].text.encode()) for number in gone]
    left = [item for number, item in enumerate(items) if number not in gone]
    file = builder.build((), bases=[(segment, [p for p in places if p is not None])], any_word=any_word)
    assert file == bytes(segment_of(left, any_word=any_word)._file)


@settings(max_examples=100, deadline=None)
@given(items=item_lists(), any_word=st.booleans())
def test_names_of_a_document_are_found_by_its_id(items: list[reference.Item], any_word: bool) -> None:
    segment = segment_of(items, any_word=any_word)
    for id_ in ("1", 'é"', "not there"):
        found = segment.texts(segment.names_of([id_.encode()]))
        assert sorted(found) == sorted(item.text.encode() for item in items if item.id == id_)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(
    entries=st.lists(
        st.tuples(
            st.text(st.sampled_from('ab"\\ é/東<'), min_size=1, max_size=6),
            scores,
            JSON,
            st.text(st.sampled_from('a"\\é'), max_size=2),
        ),
        max_size=12,
    ),
    query=st.text(st.sampled_from('ab"\\ é/'), max_size=4),
    edits=st.sampled_from((0, 1, trie.EDITS_AUTO)),
)
def test_the_json_says_what_python_says(
    entries: list[tuple[str, float, object, str]], query: str, edits: int
) -> None:
    kept = [
        trie.Entry(text.encode(), score, b"" if payload is None else to_json(payload), (), id_.encode())
        for text, score, payload, id_ in entries
        if reference.fold(text).strip(" ") and "\\ud" not in json.dumps(payload)
    ]
    reader = trie.Reader([trie.Segment(builder.build(kept), "test")])
    hits, _ = reader.complete(query.encode(), 10, edits)
    completions = [
        {
            "text": hit.text.decode(),
            "score": hit.score,
            "edits": hit.edits,
            "highlights": hit.highlights,
            "payload": from_json(hit.payload) if hit.payload else None,
            **({"id": hit.id.decode()} if hit.id else {}),
        }
        for hit in hits
    ]
    body = reader.complete_json(query.encode(), 10, edits)
    assert body == to_json({"query": query, "completions": completions})
    assert json.loads(body)["query"] == query


def test_the_json_says_when_a_bound_was_reached() -> None:
    letters = random.Random(1)
    texts = {"".join(letters.choices("abcdefghijklmnop", k=12)) for _ in range(200_000)}
    entries = [trie.Entry(text.encode(), letters.random()) for text in sorted(texts)]
    reader = trie.Reader([trie.Segment(builder.build(entries), "test")])
    reached = 0
    for query in (b"a", b"abcdefgh", b"hgfedcba", b"bbbbbbbb", b"nothing like it", min(texts).encode()):
        for edits in (0, 1, 2):
            _, partial = reader.complete(query, 10, edits)
            body = reader.complete_json(query, 10, edits)
            assert json.loads(body).get("partial", False) is partial
            assert to_json(CompleteAnswer.model_validate_json(body)) == body
            reached += partial
    assert 0 < reached <= 6, "with two errors, and never without"


@settings(max_examples=300, deadline=None)
@given(score=st.one_of(scores, st.floats(1e-320, 1e-300), st.floats(1e14, 1e18), st.floats(1e-8, 1e-3)))
def test_numbers_are_written_as_pydantic_writes_them(score: float) -> None:
    body = trie.Reader([trie.Segment(builder.build([trie.Entry(b"a", score)]), "test")]).complete_json(
        b"", 1, 0
    )
    assert b'"score":' + to_json(score + 0.0) + b"," in body


def test_integers_of_any_length_are_written_as_pydantic_writes_them() -> None:
    whole = sorted({float(min(10**power + by, 2**53)) for power in range(17) for by in (-1, 0, 1, 8)})
    segment = trie.Segment(builder.build([trie.Entry(str(score).encode(), score) for score in whole]), "test")
    found = json.loads(trie.Reader([segment]).complete_json(b"", 100, 0))["completions"]
    assert to_json([completion["score"] for completion in found]) == to_json(whole[::-1])


@settings(max_examples=100, deadline=None)
@given(
    texts=st.sets(st.text(st.sampled_from('ab"\\<'), min_size=1, max_size=40), max_size=100),
    limit=st.integers(1, 100),
)
def test_texts_that_are_their_keys_are_escaped_where_they_must_be(texts: set[str], limit: int) -> None:
    ranked = sorted(texts, key=lambda text: (len(text), text))
    entries = [trie.Entry(text.encode(), 1.0) for text in ranked]
    reader = trie.Reader([trie.Segment(builder.build(entries, any_word=False), "test")])
    for query in ("", "a", '"', "\\", "b<"):
        expected = [text for text in ranked if text.startswith(query)][:limit]
        body = reader.complete_json(query.encode(), limit, 0)
        assert [completion["text"] for completion in json.loads(body)["completions"]] == expected
        assert to_json(CompleteAnswer.model_validate_json(body)) == body


@settings(max_examples=300, deadline=None)
@given(
    text=st.one_of(
        JSON.map(to_json), st.text(st.sampled_from('{}[]",:0-1.eE+tfnrual\\ \n'), max_size=12).map(str.encode)
    )
)
def test_a_payload_is_json_or_refused(text: bytes) -> None:
    _, verdicts = builder.build_segment([b"a"], [1.0], [text])
    try:
        from_json(text, allow_inf_nan=False)
        right = True
    except ValueError:
        right = not text
    assert (verdicts[0] == 0) == right


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("tâm", "Tâm"),
        ("tam", "Tam"),
        ("tấm", "Tấm"),
        ("TÂM", "Tâm"),
        ("duong", "Đường"),
        ("đường", "Đường"),
        ("york", "New York"),
        ("yrok", "New York"),
        ("learn machine", "machine learning"),
        ("york new", "New York"),
        ("моск", "Москва"),
        ("αρ", "Άργος"),
        ("محم", "مُحَمَّد"),
        ("हिन्", "हिन्दी"),
        ("ไท", "ไทย"),
        ("한", "한국어"),
        ("北", "北京"),
        ("brien", "O'Brien"),
        ("reader", "file-reader"),
        ("scikit learn", "scikit_learn"),
    ],
)
def test_what_people_type(query: str, first: str) -> None:
    names = [
        "Tam",
        "Tâm",
        "Tấm",
        "Đường",
        "Москва",
        "Άργος",
        "مُحَمَّد",
        "हिन्दी",
        "ไทย",
        "한국어",
        "北京",
        "O'Brien",
        "file-reader",
        "scikit_learn",
    ]
    names += ["New York", "machine learning"]
    segment = segment_of([reference.Item(name, 100 - at) for at, name in enumerate(names)], any_word=True)
    hits, _ = segment.complete(query.encode(), 10, trie.EDITS_AUTO)
    assert hits[0].text.decode() == first
    if query == "tam":
        assert {hit.text.decode() for hit in hits} >= {"Tam", "Tâm", "Tấm"}


@pytest.mark.parametrize(
    "query", ["a\u0301" * 85, "\u0301" * 128, "\ufdfa" * 8, "a " * 128, "-" * 256, "a b " * 64]
)
def test_strange_queries_get_a_clear_answer(query: str) -> None:
    segment = segment_of([reference.Item("á b", 1), reference.Item("-", 2)], any_word=True)
    for edits in (0, 1, 2, trie.EDITS_AUTO):
        if fits(query):
            segment.complete(query.encode(), 10, edits)
        else:
            with pytest.raises(OutOfRangeError):
                segment.complete(query.encode(), 10, edits)


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


def small_file(*, any_word: bool = False, ids: bool = False) -> bytes:
    entries = [
        trie.Entry(text.encode(), score, b"", TAGS[at % 3 : at % 4]) for at, (text, score) in enumerate(SMALL)
    ]
    entries[0] = entries[0]._replace(payload=b'{"a":1}')
    if not any_word:
        entries = [entry._replace(contexts=()) for entry in entries]
    if ids:
        entries = [entry._replace(id=b"%d" % (at % 4) * (at % 3)) for at, entry in enumerate(entries)]
    return builder.build(entries, any_word=any_word)


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
    """Repair the checksums."""
    (sections,) = struct.unpack_from("<I", file, 32)
    end = min(64 + 32 * sections, len(file))
    for at in range(64, end - 31, 32):
        offset, length = struct.unpack_from("<QQ", file, at + 8)
        if offset + length <= len(file):
            struct.pack_into("<I", file, at + 24, crc32c(bytes(file[offset : offset + length])))
    struct.pack_into("<I", file, 40, 0)
    struct.pack_into("<I", file, 40, crc32c(bytes(file[:end])))
    return bytes(file)


def test_the_checksum_is_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, B.4
    assert with_checksums(bytearray(small_file())) == small_file()


def answers(segment: trie.Segment) -> None:
    reader = trie.Reader([segment])
    for prefix in (b"", b"s", b"sa", b"sai", "sào".encode(), b"y" * 250, "東".encode(), b"z", b"paulo sao"):
        for edits in (0, 1, 2):
            for contexts in ((), ("city",)):
                hits, _ = reader.complete(prefix, 100, edits, contexts)
                assert len(hits) <= segment.entries
                for hit in hits:
                    assert all(start < end <= len(hit.text.decode()) for start, end in hit.highlights)
                ids = [hit.id for hit in hits if hit.id]
                assert len({*ids}) == len(ids)
                json.loads(reader.complete_json(prefix, 100, edits, contexts))
    list(segment)


@pytest.mark.parametrize(("any_word", "ids"), [(False, False), (True, False), (True, True)])
def test_a_changed_byte_with_repaired_checksums_is_refused_or_harmless(any_word: bool, ids: bool) -> None:
    file = small_file(any_word=any_word, ids=ids)
    (sections,) = struct.unpack_from("<I", file, 32)
    start, end = 64 + 32 * sections, len(file)
    if ids:  # the section of the ids, which comes last; the others are those of the file without
        number, start, end = struct.unpack_from("<I4xQQ", file, start - 32)
        assert number == 12
        end += start
    refused = 0
    for at in range(start, end):
        for value in (0, file[at] ^ 1, 0xFF):
            damaged = bytearray(file)
            damaged[at] = value
            try:
                segment = trie.Segment(with_checksums(damaged), "test")
            except FileFormatError:
                refused += 1
            else:
                answers(segment)
    assert refused > (end - start) // 4


@pytest.mark.parametrize(
    ("field", "layout", "values"),
    [
        (8, "<I", [0, 1, 3, 2**31, 2**32 - 1]),  # format version
        (12, "<I", [0, 2, 2**32 - 1]),  # fold version
        (16, "<Q", [0, 1, 2**31, 2**32, 2**63, 2**64 - 1]),  # file bytes
        (24, "<Q", [0, 1, 8, 10, 2**31, 2**32 - 1, 2**63, 2**64 - 1]),  # entries
        (32, "<I", [0, 2, 16, 17, 2**31, 2**32 - 1]),  # sections
        (36, "<I", [0, 1, 2, 3, 6, 7, 2**31]),  # flags: this file has 4
        (44, "<I", [1]),  # reserved
        (64, "<I", [0, 2, 2**32 - 1]),  # section id
        (68, "<I", [1, 2, 2**31]),  # section flags
        (72, "<Q", [0, 64, 127, 129, 192, 2**32, 2**63, 2**64 - 64, 2**64 - 1]),  # section offset
        (80, "<Q", [0, 1, 2**32, 2**63, 2**64 - 128, 2**64 - 1]),  # section length
        (92, "<I", [0, 2, 8, 10, 2**32 - 1]),  # items
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


@settings(max_examples=400, deadline=None)
@given(any_word=st.booleans(), ids=st.booleans(), data=st.data())
def test_random_damage_with_repaired_checksums(any_word: bool, ids: bool, data: st.DataObject) -> None:
    damaged = bytearray(small_file(any_word=any_word, ids=ids))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(64, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        segment = trie.Segment(with_checksums(damaged), "test")
    except FileFormatError:
        return
    answers(segment)


@pytest.mark.parametrize("any_word", [False, True])
def test_the_golden_file_still_opens(request: pytest.FixtureRequest, any_word: bool) -> None:
    name = "segment-v2-words.mrx" if any_word else "segment-v2.mrx"
    file = (Path(request.path).parent / "golden" / name).read_bytes()
    answers(trie.Segment(file, "golden"))
    assert file == small_file(any_word=any_word), (
        "the same input gives the same bytes, from version to version"
    )


NAMES = [  # of documents: section 12 of a segment
    trie.Entry("Thành phố Hồ Chí Minh".encode(), 9.5, b'{"country":"VN"}', ("city",), b"Q1854"),
    trie.Entry("Sài Gòn".encode(), 9.5, b"", ("city", "land"), b"Q1854"),
    trie.Entry(b"Saigon", 7, b"[1,2]", (), b"Q1854"),
    trie.Entry(b"New York", 8, b"{}", ("city",), b"Q60"),
    trie.Entry(b"New Amsterdam", 1, b"", (), b"Q60"),
    trie.Entry(b"York", 5, b"", ("city",), 'é"1'.encode()),
    trie.Entry("東京".encode(), 6, b"", ("land",)),
    *(trie.Entry(f"saint {i}".encode(), 3, b"", (), b"i" * 256) for i in range(16)),
]


def test_the_golden_file_with_ids_is_read_as_it_was_written(request: pytest.FixtureRequest) -> None:
    file = (Path(request.path).parent / "golden" / "segment-v2-ids.mrx").read_bytes()
    segment = trie.Segment(file, "golden")
    answers(segment)
    assert sorted(segment) == sorted(NAMES)
    shown = {
        query: [
            (hit.text.decode(), hit.id.decode(), hit.payload) for hit in segment.complete(query, 10, 0)[0]
        ]
        for query in (b"sai", b"new", b"york", b"saint", "東".encode())
    }
    saigon, new_york = ("Sài Gòn", "Q1854", b""), ("New York", "Q60", b"{}")
    assert shown == {
        b"sai": [saigon, ("saint 0", "i" * 256, b"")],
        b"new": [new_york],
        b"york": [("York", 'é"1', b""), new_york],
        b"saint": [("saint 0", "i" * 256, b"")],
        "東".encode(): [("東京", "", b"")],
    }
    assert segment.names_of([b"Q60", b"none"]) == [segment.find(b"New York"), segment.find(b"New Amsterdam")]
    assert builder.build(NAMES) == file, "the same input gives the same bytes, from version to version"


def test_a_file_of_the_first_version_is_refused_with_what_to_do(request: pytest.FixtureRequest) -> None:
    file = (Path(request.path).parent / "golden" / "segment-v1.mrx").read_bytes()
    with pytest.raises(FileFormatError, match=r"older than this library reads.*build the index again"):
        trie.Segment(file, "old")
