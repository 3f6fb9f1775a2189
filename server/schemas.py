"""The shapes of answers and requests, as OpenAPI tells them; each model gets its own request schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, create_model, model_validator

from mariana.autocomplete import QUERY_MAX
from mariana.entries import DEFAULT_SCORE, ID_MAX, TEXT_MAX
from mariana.explain import ExplainMethod
from mariana.format import InputField, Label, Quantization
from mariana.model import Model
from mariana.model_card import example_record

from .bodies import Number
from .errors import MEDIA_TYPE

DESCRIBED_FEATURES = 1024
"""A model with more features than that is not described feature by feature."""

BATCH_MAX = 10_000
"""Entries that one request may change."""

REF = "#/components/schemas/{model}"


class ErrorPlace(BaseModel):
    """One thing that is wrong with the input."""

    pointer: str = Field(description="where, as a JSON pointer (RFC 6901)", examples=["/instances/0/3"])
    detail: str = Field(examples=["expected a number"])


class ProblemDetails(BaseModel):
    """An error, by RFC 9457; under 1 kB, and nothing of the input is in it."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Bad Request"])
    status: int = Field(examples=[400])
    detail: str = Field(examples=["/instances/0/3: expected a number"])
    error: str = Field(description="the same as detail", examples=["/instances/0/3: expected a number"])
    errors: list[ErrorPlace] | None = None


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the entry ``responses`` of a route for the errors that it can answer."""
    descriptions = {
        400: "malformed, or of the wrong shape or type",
        401: "no admin token, or a wrong one",
        403: "the server's settings allow it to nobody",
        404: "no such model, version, index or entry",
        413: "too large",
        415: "not a type of body that is taken",
        422: "a value is out of its range",
        503: "busy, about to stop, or not to be written now; try again after Retry-After seconds",
        507: "the disk is full",
    }
    schema = {"$ref": REF.format(model=ProblemDetails.__name__)}
    told: dict[int | str, str] = {status: descriptions[status] for status in statuses}
    told[429] = "more requests than this client may send; Retry-After says when"
    told[503] = descriptions[503]
    told["default"] = "any other error"
    return {s: {"description": text, "content": {MEDIA_TYPE: {"schema": schema}}} for s, text in told.items()}


def component(form: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI schema of a class and of those that it is made of, by name."""
    schema = form.model_json_schema(ref_template=REF)
    parts: dict[str, Any] = schema.pop("$defs", {})
    return {**parts, form.__name__: schema}


class ExplanationAnswer(BaseModel):
    """What each feature has to do with an answer."""

    output: Label = Field(description="the class, or the target, that is explained")
    value: float = Field(description="of it: of a class its log-odds, log(p / (1 - p))")
    baseline_value: float = Field(description="the same at the baseline")
    shares: dict[str, float] = Field(
        description="by feature: how far it moves the value away from the baseline's",
        examples=[{"petal_length": 2.1, "petal_width": -0.3}],
    )


class ExplainAnswer(BaseModel):
    """How predictions were explained."""

    method: ExplainMethod
    of: Literal["log_odds", "value"] = Field(description="what shares are counted in")
    baseline: dict[str, float | str | None] = Field(
        description="the row from which shares are counted: stand-ins for missing values, or the centres of training"
    )


class ClassPredictionAnswer(BaseModel):
    """What the model says of one row."""

    label: Label
    probability: float = Field(description="of the label")
    probabilities: list[float] = Field(description="in the order of labels")
    explanation: ExplanationAnswer | None = Field(default=None, description="where the request asks for it")


class ValuePredictionAnswer(BaseModel):
    """What the model says of one row; an array when there are several targets."""

    value: float | list[float]
    explanation: ExplanationAnswer | list[ExplanationAnswer] | None = Field(
        default=None, description="where the request asks for it; an array when there are several targets"
    )


class ClassificationAnswer(BaseModel):
    """One prediction a row, in the order of the rows."""

    model: str
    version: int
    labels: list[Label]
    predictions: list[ClassPredictionAnswer]
    explain: ExplainAnswer | None = Field(default=None, description="where the request asks for it")


class RegressionAnswer(BaseModel):
    """One prediction a row, in the order of the rows."""

    model: str
    version: int
    labels: list[Label] = Field(description="empty")
    predictions: list[ValuePredictionAnswer]
    explain: ExplainAnswer | None = Field(default=None, description="where the request asks for it")


class VersionError(BaseModel):
    """Why a version does not serve."""

    error_code: Literal["OK", "DATA_LOSS"]
    error_message: str


class VersionStatus(BaseModel):
    """The state of one version, as TensorFlow Serving tells it."""

    version: str
    state: Literal["AVAILABLE", "END"]
    status: VersionError


class FeatureInfo(BaseModel):
    """One input column."""

    name: str
    kind: Literal["numeric", "boolean", "categorical", "date"] = Field(
        description="a date is a text in ISO 8601; in a row of numbers its parts stand in place of it"
    )
    required: bool = Field(description="no value stands in for a missing one")
    categories: list[str] | None = None


class ModelInfo(BaseModel):
    """A model; of the version that serves when none is named. Null where none could be loaded."""

    name: str
    ready: bool = Field(description="a version serves")
    version: int | None = Field(description="that serves when none is named")
    versions: list[int] = Field(description="that serve")
    task: Literal["classification", "regression"] | None = None
    features: list[FeatureInfo] | None = None
    input_shape: list[int] | None = Field(default=None, description="of one row, before it was made flat")
    labels: list[Label] | None = None
    targets: list[str] | None = None
    metrics: dict[str, dict[str, float]] | None = Field(default=None, description="metric by split")
    parameters: int | None = Field(default=None, description="weights and biases")
    layers: list[int] | None = Field(default=None, description="units of each layer")
    isa: str | None = Field(default=None, description="instruction set in use")
    precision: Literal["float32", "float32-split", "bfloat16", "int8"] | None = Field(
        default=None, description="how the layers are computed"
    )
    quantization: Quantization | None = Field(
        default=None,
        description="of a network that was quantised: the file that it comes from, and what was lost; else null",
    )
    nbytes: int | None = Field(default=None, description="of packed weights in memory")
    model_version_status: list[VersionStatus]


class ModelList(BaseModel):
    """The models of the store."""

    models: list[ModelInfo]


class IndexInfo(BaseModel):
    """An autocomplete index."""

    name: str
    state: Literal["AVAILABLE", "END"]
    entries: int | None = None
    nbytes: int | None = None
    error: str | None = Field(
        default=None, description="why it does not serve, or why its newer files do not"
    )


class IndexList(BaseModel):
    """The indexes of the store."""

    indexes: list[IndexInfo]


class CompletionAnswer(BaseModel):
    """One completion."""

    text: str
    score: float
    edits: int = Field(description="typing errors between the query and the text")
    highlights: list[tuple[int, int]] = Field(description="[start, end) in Unicode code points of the text")
    payload: JsonValue = Field(description="what was stored with the text, or null")
    id: str | None = Field(
        default=None,
        exclude_if=lambda id_: id_ is None,
        description="of the document that the text is a name of; left out where there is none",
    )


class CompleteAnswer(BaseModel):
    """The completions, best first."""

    query: str
    completions: list[CompletionAnswer]
    partial: bool = Field(
        default=False,
        exclude_if=lambda partial: not partial,
        description="true where not all of the index could be looked through: the completions are right and in order, "
        "and a better one with typing errors may be missing; left out otherwise",
    )


class Insertion(BaseModel):
    """An entry: what is shown, and what goes with it."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(
        min_length=1, max_length=TEXT_MAX, description="what is shown; at most 1024 bytes of UTF-8"
    )
    score: float = Field(
        default=DEFAULT_SCORE, ge=0, allow_inf_nan=False, description="the higher, the earlier it comes"
    )
    payload: Any = Field(
        default=None, description="any JSON value; given back with the entry; at most 65536 bytes of JSON"
    )
    contexts: list[str] = Field(
        default=[],
        max_length=64,
        description="names that a query can ask for; an index has at most 64 different ones",
    )
    id: str | None = Field(
        default=None,
        min_length=1,
        max_length=ID_MAX,
        description="of the document that the text is a name of: an answer shows a document once, by its best name; "
        "at most 256 bytes of UTF-8",
    )


class Insertions(BaseModel):
    """Entries to be inserted; they replace whole those of the same text. Of a text twice, the later one counts."""

    model_config = ConfigDict(extra="forbid")

    entries: list[Insertion] = Field(min_length=1, max_length=BATCH_MAX)

    @classmethod
    def examples(cls) -> dict[str, Any]:
        """Return examples for the documentation."""
        payload = {"country": "VN"}
        return {
            "one": {
                "summary": "a text and its score",
                "value": {"entries": [{"text": "Hue", "score": 351456}]},
            },
            "two": {
                "summary": "with a payload; without a score it is 1",
                "value": {
                    "entries": [{"text": "Da Nang", "score": 1188374, "payload": payload}, {"text": "Vinh"}]
                },
            },
        }


class Deletions(BaseModel):
    """Entries to be deleted: by text, by the id of their document, or both."""

    model_config = ConfigDict(extra="forbid")

    texts: list[str] = Field(
        default=[],
        max_length=BATCH_MAX,
        description="as they are shown; those that are not there do not count",
    )
    ids: list[str] = Field(
        default=[],
        max_length=BATCH_MAX,
        description="all names of these documents; those that are not there do not count",
    )

    @model_validator(mode="after")
    def _check_some(self) -> Self:
        if not self.texts and not self.ids:
            raise ValueError("name at least one of texts and ids")
        return self

    @classmethod
    def examples(cls) -> dict[str, Any]:
        """Return examples for the documentation."""
        return {
            "two": {"summary": "two entries", "value": {"texts": ["Hue", "Vinh"]}},
            "document": {"summary": "all names of a document", "value": {"ids": ["Q1854"]}},
        }


class Selection(BaseModel):
    """What a person typed, and which completion was chosen."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(max_length=QUERY_MAX, description="what was typed; not kept")
    text: str = Field(
        min_length=1, max_length=TEXT_MAX, description="the entry that was chosen, as it is shown"
    )

    @classmethod
    def examples(cls) -> dict[str, Any]:
        """Return examples for the documentation."""
        return {"one": {"summary": "chosen after three letters", "value": {"query": "sai", "text": "Saigon"}}}


class ReceiptAnswer(BaseModel):
    """A change that is on the disk, and visible in the process that answers."""

    sequence: int = Field(
        description="its number; the changes to an index are numbered as they happen", examples=[17]
    )
    count: int = Field(
        description="entries inserted or replaced, entries that were there to delete, or selections that counted",
        examples=[2],
    )


class ServerMetadata(BaseModel):
    """Open Inference Protocol: server metadata."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """Open Inference Protocol: the server runs."""

    live: bool


class Ready(BaseModel):
    """Open Inference Protocol: the server takes requests."""

    ready: bool


class ModelReady(BaseModel):
    """Open Inference Protocol: the model takes requests."""

    name: str
    ready: bool


class TensorMetadata(BaseModel):
    """Open Inference Protocol: a tensor; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class Duration(BaseModel):
    """How often something was done, and how long all of it took."""

    count: int
    ns: int


class InferenceDurations(BaseModel):
    """Requests, and the time of each stage."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class InferenceStatistics(BaseModel):
    """Open Inference Protocol, statistics extension: what a version has done since the server started."""

    name: str
    version: str
    last_inference: int = Field(description="milliseconds since the epoch; 0: none yet")
    inference_count: int = Field(description="rows")
    execution_count: int = Field(description="requests")
    inference_stats: InferenceDurations


class ModelStatistics(BaseModel):
    """Open Inference Protocol, statistics extension."""

    model_stats: list[InferenceStatistics]


class ModelMetadataAnswer(BaseModel):
    """Open Inference Protocol: model metadata."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, str] = Field(description="precision and isa: how and on what it is computed")


def request_schema(name: str, version: int, model: Model) -> tuple[type[BaseModel], type[BaseModel] | None]:
    """Return the two forms that a model's JSON body may have: rows of numbers, and records (None: not described)."""
    features = model.info.features
    title = f"{name}_{version}"
    row: Any = Annotated[
        list[Number] if all(f.fill is None for f in features) else list[Number | None],
        Field(min_length=len(features), max_length=len(features)),
    ]
    rows = create_model(
        f"{title}_rows",
        __doc__=f"Rows of {len(features)} numbers, in the order of the features; null is a missing value.",
        instances=_instances(row),
    )
    if len(features) > DESCRIBED_FEATURES:
        return rows, None
    fields: dict[str, Any] = {}
    for position, field in enumerate(model.info.fields):
        kind = _value_type(field)
        fields[f"f{position}"] = (
            (kind, Field(alias=field.name))
            if field.required
            else (kind | None, Field(default=None, alias=field.name))
        )
    record: Any = create_model(
        f"{title}_record",
        __config__=ConfigDict(extra="forbid"),
        __doc__="One value a feature; a missing one that the model stands in for may be null or absent.",
        **fields,
    )
    records = create_model(
        f"{title}_records",
        __doc__="Rows by the names of the features.",
        instances=_instances(record),
    )
    return rows, records


def _instances(item: Any) -> Any:
    return (Annotated[list[item], Field(min_length=1)], ...)


def _value_type(field: InputField) -> Any:
    if field.kind == "categorical":
        return Literal[field.categories] if field.required else str
    if field.kind == "date":
        return Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    return bool if field.kind == "boolean" else Number


def examples(model: Model) -> dict[str, dict[str, Any]]:
    """Return an example of each form, from the first golden row where there is one."""
    features = model.info.features
    golden = model.info.golden.inputs
    row = list(golden[0]) if golden else [0.0] * len(features)
    found = {"rows": {"summary": "a row of numbers", "value": {"instances": [row]}}}
    if len(features) <= DESCRIBED_FEATURES:
        record = {name: value for name, value in example_record(model.info).items() if value is not None}
        found["records"] = {"summary": "by the names of the features", "value": {"instances": [record]}}
    return found
