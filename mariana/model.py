"""A model in memory: raw rows in, labels or values out.

What is imported here is all that loading a sealed file and predicting need; the rest comes when it is first used.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mariana._binding import choose_isa
from mariana._binding.dense import Network, precision_usable
from mariana.environment import running
from mariana.errors import FileFormatError, InvalidInputError, KernelError, NotFoundError, OutOfRangeError
from mariana.sealed import SealedFile, read_sealed

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from mariana._binding.memory import Memory
    from mariana._binding.pool import Pool
    from mariana.explain import Attribution, Gradients
    from mariana.format import ModelFile, ModelMetadata
    from mariana.plan import Plan
    from mariana.records import ClassPrediction, Prediction, Records, ValuePrediction

    Float32 = NDArray[np.float32]

__all__ = ["ClassPrediction", "Model", "Prediction", "ValuePrediction", "find_model", "load_model"]

_FLOAT32 = np.dtype(np.float32)
_GOLDEN_ABSOLUTE, _GOLDEN_RELATIVE = 1e-4, 1e-3
"""How far golden outputs may be off, in units of the target scale: instruction sets and libraries round differently."""
_GOLDEN_NARROW = 0.02
"""The same for bfloat16 and int8, in units of the largest output: where a hidden number lies next to the border of two
steps, a last bit that differs moves it by a whole step."""


_CALLERS = ("E_ISA", "E_NO_MEMORY")
"""What C refuses that is not the file's fault."""


def __getattr__(name: str) -> Any:
    if name in ("ClassPrediction", "Prediction", "ValuePrediction"):
        from mariana import records  # noqa: PLC0415 - brings pydantic along

        return getattr(records, name)
    raise AttributeError(f"module 'mariana.model' has no attribute {name!r}")


def load_model(
    path: str | Path,
    *,
    isa: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    memory: Memory | None = None,
    validate: bool = False,
) -> Model:
    """Read a model file, check it, and make it ready to run.

    A file with its seal whole (``docs/format.md``) is as it was when it was written, after every check, and loads
    quickly; of every other file all is checked.

    Args:
        path: the file, the folder of a version, or the folder of a model (its highest version).
        isa: the highest instruction set to use (``generic``, ``avx2``, ``avx512``, ...); default: the
            environment's ``MARIANA_ISA``, else the best that this machine has.
        precision: how a file with float32 weights is computed, ``float32`` or ``float32-split``; default: the
            environment's ``MARIANA_PRECISION``, else ``float32``. A quantised file runs in its own precision.
            Where the machine has no AMX, ``float32-split`` runs as ``float32``; ``Model.precision`` says what runs.
        threads: that share the work of a call, with the caller's own, where it is worth it; the answers have the
            same bits. Idle ones cost no time. Default: ``MARIANA_THREADS``, else 1.
        memory: where the packed weights are, for processes that share them; default: this process's own.
        validate: check all of a file whose seal is whole, too: it may be forged.

    Returns:
        The model; any number of threads may use it at a time.

    Raises:
        NotFoundError: there is no model at ``path``.
        FileFormatError: the file is damaged, newer than this version, inconsistent, or does not
            give the outputs that it promises.
        KernelError: ``isa`` names no instruction set, or the system starts no more threads.
        InvalidInputError: an argument has the wrong type, or ``precision`` is none of the two.
        OutOfRangeError: ``threads`` is not 1 to 64.
        OSError: the file cannot be read.
    """
    if not isinstance(path, str | os.PathLike):
        raise InvalidInputError(f"path must be a string or a path, got {type(path).__name__}")
    found = find_model(Path(path))
    sealed = None if validate else read_sealed(found)
    if sealed is not None:
        try:
            model = Model(sealed, isa=isa, precision=precision, threads=threads, memory=memory)
        except KernelError as error:
            if error.status in _CALLERS:
                raise
        else:
            if _broken_promise(model, sealed.plan) is None:
                return model
    from mariana.format import read_model  # noqa: PLC0415 - brings pydantic along

    file = read_model(found)
    try:
        model = Model(file, isa=isa, precision=precision, threads=threads, memory=memory)
    except KernelError as error:
        if error.status in _CALLERS:
            raise
        raise FileFormatError(f"{found}: {error}") from None
    if (fault := _broken_promise(model, file.plan)) is not None:
        raise FileFormatError(f"{found}: {fault}")
    model._source = found  # noqa: SLF001 - in place of the weights, which C has packed a copy of
    return model


class Model:
    """A network that is ready to run, with everything that its file says of it.

    Made by :func:`load_model`. Any number of threads may use it at a time.

    Args:
        file: what :func:`mariana.format.read_model` returned.
        isa: as for :func:`load_model`.
        precision: as for :func:`load_model`.
        threads: as for :func:`load_model`.
        memory: as for :func:`load_model`.

    Attributes:
        info: everything but the weights.
        isa: the instruction set in use.
        precision: how the layers are computed: ``float32``, ``float32-split``, ``bfloat16`` or ``int8``.
        threads: that a call may use, the caller's own among them.
        nbytes: bytes of memory that the packed weights and tables take.
        columns: numbers in a raw row, one a feature.
        outputs: numbers that come out for a row.
    """

    def __init__(
        self,
        file: ModelFile | SealedFile,
        *,
        isa: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        memory: Memory | None = None,
    ) -> None:
        _check_arguments(isa, precision, threads)
        plan = file.plan
        set_isa, set_precision, set_threads = running() or _settings()
        chosen = choose_isa(set_isa if isa is None else isa)
        self.precision: str = _precision(
            plan.precision, set_precision if precision is None else precision, chosen
        )
        self.threads: int = set_threads if threads is None else threads
        pool = None if self.threads == 1 else _pool(self.threads)
        self._network = Network(
            plan.layers,
            math.prod(plan.input_shape),
            chosen,
            plan.tables,
            self.precision,
            pool=pool,
            memory=memory,
        )
        self._input_shape = plan.input_shape
        self._source: ModelFile | Path
        self._document: ModelMetadata | tuple[Path, bytes]
        if isinstance(file, SealedFile):
            self._source, self._document = file.path, (file.path, file.header)
        else:
            self._source, self._document = file, file.metadata
        self.isa: str = self._network.isa
        self.nbytes: int = self._network.nbytes
        self.columns: int = self._network.columns
        self.outputs: int = self._network.outputs
        self._quick = self._network.quick
        self._gradients: Gradients | None = None

    @cached_property
    def info(self) -> ModelMetadata:
        """Everything but the weights; of a sealed file it is read, and checked, when it is first asked for.

        Raises:
            FileFormatError: what a sealed file says is not consistent.
        """
        if not isinstance(self._document, tuple):
            return self._document
        from mariana.format import read_metadata  # noqa: PLC0415 - brings pydantic along

        return read_metadata(*self._document)

    @cached_property
    def _records(self) -> Records:
        from mariana.records import Records  # noqa: PLC0415 - brings pydantic along

        return Records(self.info)

    def __repr__(self) -> str:
        widths = "-".join(str(n) for n in (self.info.encoded_columns, *(la.units for la in self.info.layers)))
        how = "" if self.precision == "float32" else f" in {self.precision}"
        return f"<Model {self.info.task} {widths}{how} on {self.isa}>"

    def predict(self, x: ArrayLike) -> Float32:
        """Run raw rows through the network.

        Args:
            x: (batch, columns), or (batch, *info.input_shape); one column a feature: a number, 1 or
                0 for a boolean, the index of the category; NaN where it is missing. C-contiguous
                float32 is taken as it is, everything else is copied first.

        Returns:
            (batch, outputs) float32: probabilities for classification, else values. A missing number
            for which the model has no substitute gives NaN; an index of no category is like none of them.

        Raises:
            InvalidInputError: ``x`` has another shape, or is no array of real numbers.
        """
        y = self._quick(x)
        return self._network.predict(self._rows(x)) if y is None else y

    def bind(self, x: Float32, y: Float32) -> Callable[[], None]:
        """Return a call that runs the rows in ``x`` and writes the outputs to ``y``.

        For callers in a loop: refill ``x``, call, read ``y``. A call allocates nothing. One bound
        call belongs to one thread at a time; bind again, with other arrays, for another thread.

        Args:
            x: (batch, columns) float32, C-contiguous, aligned; as for :meth:`predict`.
            y: (batch, outputs) float32, C-contiguous, aligned, writable.

        Raises:
            InvalidInputError: an array has another shape or type, or the two overlap.
        """
        for name, array, width in (("x", x, self.columns), ("y", y, self.outputs)):
            if (
                not isinstance(array, np.ndarray)  # type: ignore[redundant-expr] # callers may not be typed
                or array.dtype != _FLOAT32
                or array.ndim != 2
                or array.shape[1] != width
                or not array.flags.c_contiguous
                or not array.flags.aligned
            ):
                raise InvalidInputError(
                    f"bind needs {name} as a C-contiguous float32 array, aligned, (batch, {width}), got {_kind(array)}"
                )
        if len(x) != len(y):
            raise InvalidInputError(f"bind needs as many rows in x as in y, got {len(x)} and {len(y)}")
        if not y.flags.writeable:
            raise InvalidInputError("bind writes the outputs to y, but the array is read-only")
        if np.may_share_memory(x, y):
            raise InvalidInputError("bind needs x and y apart, but the arrays overlap")
        return self._network.bind(x, y)

    def encode(self, records: Sequence[Mapping[str, object]]) -> Float32:
        """Turn rows with names into the matrix that :meth:`predict` takes.

        A value may be missing (the key is not there, None, or a category that is not in the model's
        list) where the feature has a substitute.

        Args:
            records: rows; numbers for numeric features, True or False for boolean ones, strings
                for categorical ones; for the column of a date a text in ISO 8601, a date or a datetime.

        Returns:
            (len(records), columns) float32.

        Raises:
            InvalidInputError: a name is unknown, a value is missing or has the wrong type;
                ``pointer`` says where, for example ``/3/sepal_length``.
            OutOfRangeError: a number is not finite or does not fit float32; a category is unknown.
        """
        return self._records.encode(records)

    def decode(self, y: Float32) -> list[Prediction]:
        """Say what outputs mean.

        Args:
            y: (batch, outputs), of :meth:`predict`.

        Returns:
            One prediction a row: :class:`ClassPrediction` or :class:`ValuePrediction`.

        Raises:
            InvalidInputError: ``y`` has another shape.
        """
        return self._records.decode(y)

    def predict_records(self, records: Sequence[Mapping[str, object]]) -> list[Prediction]:
        """Run rows with names through the network and say what comes out.

        The same as ``decode(predict(encode(records)))``; see there for what may be raised.
        """
        return self.decode(self._network.predict(self.encode(records)))

    def explain(
        self, data: ArrayLike | Sequence[Mapping[str, object]], method: str = "auto"
    ) -> list[list[Attribution]]:
        """Say what each feature adds to the answers to some rows.

        Of a class it is the log-odds of the predicted one that is explained, ``log(p / (1 - p))``; of values each. Shares
        are of features as a row with names has them, counted from ``mariana.explain.baseline_record(model.info)``.

        Args:
            data: rows as :meth:`predict` takes them, or records as :meth:`encode` does.
            method: ``leave_one_out``, ``gradient_x_input``, ``integrated_gradients``; ``auto`` is the first one for up to
                128 features, else the second. ``mariana.explain`` tells of each, and where it comes from.

        Returns:
            For each row one :class:`~mariana.explain.Attribution`, or one a target where there are several.

        Raises:
            InvalidInputError: as :meth:`predict` or :meth:`encode`; or there is no such method.
            NotFoundError, FileFormatError: gradients need the weights, and the file is gone, or another one.
        """
        from mariana.explain import Gradients, choose, leave_one_out  # noqa: PLC0415 - brings pydantic along

        chosen = choose(self.info, method)
        records = isinstance(data, Sequence) and any(isinstance(row, Mapping) for row in data)
        x = self.encode(data) if records else self._rows(data)  # type: ignore[arg-type] # that is what was asked
        if chosen == "leave_one_out":
            return leave_one_out(self.info, self._network.predict, x)
        if self._gradients is None:
            self._gradients = Gradients(self._file())
        return self._gradients.explain(x, integrated=chosen == "integrated_gradients")

    def _file(self) -> ModelFile:
        if not isinstance(self._source, Path):
            return self._source
        from mariana.format import read_model  # noqa: PLC0415 - brings pydantic along

        file = read_model(find_model(self._source))
        if file.metadata != self.info:
            raise FileFormatError(
                f"{self._source}: it is not the file any more that the model was loaded from"
            )
        return file

    def _rows(self, x: ArrayLike) -> Float32:
        """Return ``x`` as (batch, columns) float32, C-contiguous."""
        try:
            array = np.asarray(x)
        except ValueError:
            raise InvalidInputError(
                "expected a matrix of numbers, but its rows have different lengths"
            ) from None
        if array.dtype.kind not in "fiub":
            raise InvalidInputError(f"expected real numbers, got an array of {array.dtype}")
        if array.ndim > 2 and array.shape[1:] == self._input_shape:
            array = array.reshape(len(array), self.columns)
        if array.ndim != 2:
            hint = "; put one row into a list" if array.ndim == 1 else ""
            raise InvalidInputError(
                f"expected a matrix of shape (batch, {self.columns}), got shape {array.shape}{hint}"
            )
        if array.shape[1] != self.columns:
            raise InvalidInputError(
                f"expected {self.columns} features, got {array.shape[1]}; the model's info.features names them"
            )
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(array, np.float32)
        if not rows.flags.aligned:  # its bytes begin between two numbers
            rows = rows.copy()
        if array.dtype.itemsize > 4 and (wrong := np.isinf(rows) & np.isfinite(array)).any():
            row, column = np.argwhere(wrong)[0].tolist()
            raise OutOfRangeError(
                f"row {row}, column {column}: {array[row, column]} does not fit float32",
                pointer=f"/{row}/{column}",
            )
        return rows


def _kind(thing: object) -> str:
    if isinstance(thing, np.ndarray):
        order = "" if thing.flags.c_contiguous else ", not C-contiguous"
        place = "" if thing.flags.aligned else ", not aligned"
        return f"{thing.dtype} {thing.shape}{order}{place}"
    return type(thing).__name__


def find_model(path: Path) -> Path:
    """Return the model file that a path means: the file, the folder of a version, or of a model (its highest version).

    Raises:
        NotFoundError: there is no model at ``path``.
    """
    if not path.is_dir():
        if not path.exists():
            raise NotFoundError(f"{path}: there is no such file or folder")
        return path
    from mariana.store import MODEL_FILE, versions_in  # noqa: PLC0415 - a file alone needs no store

    if (path / MODEL_FILE).exists():
        return path / MODEL_FILE
    versions = versions_in(path)
    if not versions:
        raise NotFoundError(f"{path}: no {MODEL_FILE} here, and no version folder (1, 2, ...) that holds one")
    return path / str(versions[-1]) / MODEL_FILE


def _check_arguments(isa: object, precision: object, threads: object) -> None:
    for name, given in (("isa", isa), ("precision", precision)):
        if given is not None and not isinstance(given, str):
            raise InvalidInputError(
                f"{name} must be a name, as a string, or None; got {type(given).__name__}"
            )
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool)):
        raise InvalidInputError(f"threads must be a whole number or None, got {type(threads).__name__}")


def _settings() -> tuple[str | None, str, int]:
    """Return isa, precision and threads as all settings together say, or their error."""
    from mariana.settings import load_settings  # noqa: PLC0415 - brings pydantic along

    settings = load_settings()
    return settings.isa, settings.precision, settings.threads


def _pool(threads: int) -> Pool:
    from mariana._binding.pool import MAX_THREADS, pool_of  # noqa: PLC0415 - most models have none

    if not 1 <= threads <= MAX_THREADS:
        raise OutOfRangeError(f"threads must be 1 to {MAX_THREADS}, got {threads}")
    return pool_of(threads)


def _precision(stored: str, wanted: str, isa: int) -> str:
    """Return the precision that runs: quantised weights their own, float32 ones the one that is wanted, if it can be."""
    if wanted not in ("float32", "float32-split"):
        raise InvalidInputError(
            f"precision must be float32 or float32-split, got {wanted[:40]!r}; for bfloat16 and int8 make a new version "
            "with mariana quantize"
        )
    if stored != "float32":
        return stored
    return wanted if wanted == "float32" or precision_usable(wanted, isa) else "float32"


def _broken_promise(model: Model, plan: Plan) -> str | None:
    """Say which golden row gives other outputs than the file promises; None if all are kept."""
    if not len(plan.golden_inputs):
        return None
    found, promised = model.predict(plan.golden_inputs), plan.golden_outputs
    target = plan.tables.target_scale
    unit = np.ones(model.outputs) if target is None else np.abs(target, dtype=np.float64)
    if plan.precision == "float32":
        allowed = _GOLDEN_ABSOLUTE * unit + _GOLDEN_RELATIVE * np.abs(promised)
    else:
        allowed = np.broadcast_to(_GOLDEN_NARROW * np.maximum(unit, np.abs(promised).max()), promised.shape)
    with np.errstate(all="ignore"):  # a forged promise may be infinite
        wrong = ~(np.abs(found - promised) <= allowed)
    if not wrong.any():
        return None
    row, output = np.argwhere(wrong)[0].tolist()
    return (
        f"golden row {row} gives {found[row, output]:.6g} at output {output}, "
        f"but the file promises {promised[row, output]:.6g}"
    )
