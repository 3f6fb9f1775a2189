"""What the client answers: frozen dataclasses, filled from the server's JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Explanation:
    """What each feature has to do with an answer.

    Attributes:
        output: The class, or the target, that is explained.
        value: Of it: of a class its log-odds.
        baseline_value: The same at the baseline.
        shares: By feature: how far it moves ``value`` away from ``baseline_value``.
    """

    output: Any
    value: float
    baseline_value: float
    shares: dict[str, float]

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Explanation":
        """Read the server's JSON."""
        return cls(row["output"], row["value"], row["baseline_value"], dict(row["shares"]))


@dataclass(frozen=True, slots=True)
class ClassPrediction:
    """One row of a classification model.

    Attributes:
        label: The most probable class.
        probability: Its probability, 0..1.
        probabilities: Of every class, in the order of :attr:`Predictions.labels`.
        explanations: Of the label, where it was asked for; else empty.
    """

    label: Any
    probability: float
    probabilities: tuple[float, ...]
    explanations: tuple[Explanation, ...] = ()


@dataclass(frozen=True, slots=True)
class ValuePrediction:
    """One row of a regression model.

    Attributes:
        value: A number, or a tuple of them for several targets.
        explanations: One a target, where they were asked for; else empty.
    """

    value: float | tuple[float, ...]
    explanations: tuple[Explanation, ...] = ()


@dataclass(frozen=True, slots=True)
class Predictions:
    """The answer for a batch, one prediction a row, in the order of the rows.

    Attributes:
        model: The model's name.
        version: The version that answered.
        labels: Class labels; empty for regression.
        predictions: One for each row.
        baseline: Where explanations were asked for, the row from which shares are counted; else None.
    """

    model: str
    version: int
    labels: tuple[Any, ...]
    predictions: tuple[ClassPrediction | ValuePrediction, ...]
    baseline: Mapping[str, Any] | None = None

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> "Predictions":
        """Read the server's JSON."""
        return cls(
            model=answer["model"],
            version=int(answer["version"]),
            labels=tuple(answer.get("labels") or ()),
            predictions=tuple(_prediction(row) for row in answer["predictions"]),
            baseline=answer.get("explain", {}).get("baseline"),
        )


def _prediction(row: Mapping[str, Any]) -> ClassPrediction | ValuePrediction:
    told = row.get("explanation") or []
    explanations = tuple(map(Explanation.from_json, told if isinstance(told, list) else [told]))
    if "value" in row:
        value = row["value"]
        return ValuePrediction(tuple(value) if isinstance(value, list) else value, explanations)
    return ClassPrediction(row["label"], row["probability"], tuple(row["probabilities"]), explanations)


@dataclass(frozen=True, slots=True)
class Completion:
    """One suggestion.

    Attributes:
        text: The entry.
        score: Its score; the best come first.
        edits: Typing errors forgiven; 0 for an exact prefix.
        highlights: Half-open ranges of ``text`` that matched, in code points, so they slice a ``str``.
        payload: What the index keeps with the entry: any JSON value, or None.
        id: Of the document that the entry is a name of, or None.
    """

    text: str
    score: float
    edits: int
    highlights: tuple[tuple[int, int], ...]
    payload: Any
    id: str | None = None

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Completion":
        """Read one row of the server's JSON."""
        highlights = tuple((start, end) for start, end in row["highlights"])
        return cls(row["text"], row["score"], row["edits"], highlights, row["payload"], row.get("id"))


class Completions(list[Completion]):
    """Suggestions, best first: a list.

    Attributes:
        partial: Whether the search was cut short: these are right and in order, but a better one, with typing errors, may
            be missing.
    """

    partial: bool = False

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> "Completions":
        """Read the server's JSON."""
        completions = cls(Completion.from_json(row) for row in answer["completions"])
        completions.partial = answer.get("partial", False)
        return completions


@dataclass(frozen=True, slots=True)
class Receipt:
    """A change to an index that is on the server's disk.

    Attributes:
        sequence: Its number; the changes to an index are numbered as they happen.
        count: Entries inserted or replaced, entries that were there to delete, or selections that counted.
    """

    sequence: int
    count: int

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> "Receipt":
        """Read the server's JSON."""
        return cls(int(answer["sequence"]), int(answer["count"]))


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model in the server's store.

    Attributes:
        name: To be given to `predict`.
        version: The one that answers when none is named; None where none could be loaded.
        versions: All that serve.
        task: "classification" or "regression"; None where nothing is loaded.
        features: What is known of each input column: name, kind, ...
        raw: All that the server tells: labels, metrics, kernel, why a version does not serve...
    """

    name: str
    version: int | None
    versions: tuple[int, ...]
    task: str | None
    features: tuple[Mapping[str, Any], ...]
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "ModelInfo":
        """Read one row of the server's JSON."""
        features = tuple(row.get("features") or ())
        return cls(row["name"], row["version"], tuple(row["versions"]), row.get("task"), features, row)


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """An index in the server's store.

    Attributes:
        name: To be given to `complete`.
        entries: How many it holds; None where it could not be opened.
        raw: All that the server tells of it.
    """

    name: str
    entries: int | None
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "IndexInfo":
        """Read one row of the server's JSON."""
        return cls(row["name"], row.get("entries"), row)


@dataclass(frozen=True, slots=True)
class Health:
    """`live`: the server answers. `ready`: what it should serve is loaded."""

    live: bool
    ready: bool
