"""``DNNClassifier`` and ``DNNRegressor``: a table becomes a network, with the interface of scikit-learn.

They work without scikit-learn, and where it is, they take part in its pipelines, searches and checks. Names follow its
``MLPClassifier``; what that lacks has the name that it has in Keras.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mariana.errors import InvalidInputError
from mariana.format import Label, TargetScaling
from mariana.store import Store
from mariana.tables import Table, table_of

from .calibration import apply_temperature, find_temperature, logits
from .data import stratified_split
from .export import publish
from .preprocessing import Numbers, encode, infer_features, target_scaling
from .recipe import SMALL, Outputs, Recipe, build, learn
from .scores import regression_scores
from .sequential import Sequential

Float64 = NDArray[np.float64]
Rows = NDArray[np.int64]

_TOLERANCE = 1e-12


class _Estimator:
    """What both estimators share.

    Args:
        hidden_layer_sizes: units of each hidden layer.
        activation: of the hidden layers.
        solver: the optimizer, by its name.
        alpha: what the sum of the squared weights is multiplied by and added to the loss (L2).
        batch_size: rows of a step; ``auto``: 64 to 256, by the number of rows.
        learning_rate: ``cosine`` (falls to 0 over all epochs) or ``constant``.
        learning_rate_init: the first rate; ``auto``: 0.0007 for classes of 1,000 rows or more, else 0.002.
        max_iter: epochs at most; ``auto``: 40 to 300, by the number of rows.
        random_state: a whole number, a ``numpy.random.RandomState``, or None: not repeatable.
        verbose: 0 silent, 1 a bar, 2 a line an epoch.
        warm_start: whether ``fit`` goes on from the weights of the last ``fit``.
        early_stopping: whether rows are put aside to find the best epoch (and to calibrate a classifier); ``auto``: from
            1,000 rows on.
        validation_fraction: share of the rows that are put aside.
        n_iter_no_change: epochs without a smaller validation loss before it stops.
        dropout: share of the outputs of a hidden layer that a step leaves out; ``auto``: 0.1 from 1,000 rows on, else 0.
        batch_norm: whether the outputs of each hidden layer are normalised.
        weight_decay: share of the weights that each step takes away, times the learning rate.
        numbers: ``auto``: robust and piecewise linear; ``standard``: mean 0 and variance 1.
    """

    _estimator_type: ClassVar[str] = ""

    def __init__(
        self,
        hidden_layer_sizes: int | tuple[int, ...] = (256, 256, 256),
        activation: str = "tanh",
        *,
        solver: str = "adam",
        alpha: float = 0.0,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: Literal["cosine", "constant"] = "cosine",
        learning_rate_init: float | Literal["auto"] = "auto",
        max_iter: int | Literal["auto"] = "auto",
        random_state: Any = None,
        verbose: Literal[0, 1, 2] = 0,
        warm_start: bool = False,
        early_stopping: bool | Literal["auto"] = "auto",
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 20,
        dropout: float | Literal["auto"] = "auto",
        batch_norm: bool = False,
        weight_decay: float = 0.0,
        numbers: Numbers = "auto",
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.weight_decay = weight_decay
        self.numbers = numbers

    # What scikit-learn asks of an estimator; its BaseEstimator would bring the same.

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments by name."""
        del deep
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> Self:
        """Change arguments.

        Raises:
            InvalidInputError: there is none of that name.
        """
        for name, value in params.items():
            if name not in self._names():
                raise InvalidInputError(
                    f"Invalid parameter {name!r} for estimator {type(self).__name__}; there are: {self._names()}"
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = (
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if repr(value) != repr(defaults[name].default)
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import (  # noqa: PLC0415 - only scikit-learn calls this
            ClassifierTags,
            InputTags,
            RegressorTags,
            Tags,
            TargetTags,
        )

        classifies = self._estimator_type == "classifier"
        return Tags(
            estimator_type=self._estimator_type,
            target_tags=TargetTags(required=True, multi_output=True),
            transformer_tags=None,
            classifier_tags=ClassifierTags(multi_label=True) if classifies else None,
            regressor_tags=None if classifies else RegressorTags(),
            input_tags=InputTags(allow_nan=True, string=True, categorical=True),
        )

    def __getstate__(self) -> dict[str, Any]:
        """The network's arrays are views into one vector, which a pickle would tear apart: weights travel instead."""
        state = self.__dict__.copy()
        net = state.pop("network_", None)
        if net is not None:
            state["_weights"] = (net.get_weights(), net.training, net.dtype.name)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        saved = state.pop("_weights", None)
        self.__dict__.update(state)
        if saved is not None:
            weights, training, dtype = saved
            self.network_ = self._built(SMALL if dtype == "float32" else 1)
            self.network_.set_weights(weights)
            self.network_.training = training

    # Learning.

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Learn.

        Args:
            X: (rows, columns): an array, or a data frame whose columns may hold numbers, booleans, texts and dates, and miss
                values.
            y: (rows,) classes or numbers; (rows, outputs) for labels that go together (0 or 1) or several numbers.
            sample_weight: (rows,) how much each row counts; None: the same. A row of weight 0 is as good as absent.

        Raises:
            InvalidInputError: something does not fit; the message says what.
            TrainingError: the loss is no longer finite.
        """
        table = self._table(X)
        targets = self._targets(y, table.rows)
        weights = _weights(sample_weight, table.rows)
        weights = self._class_weighted(targets, weights)
        if weights is not None and not (weights > 0).all():  # as good as absent
            kept = np.flatnonzero(weights > 0)
            table, targets, weights = table.take(kept), targets[kept], weights[kept]
        again = self.warm_start and hasattr(self, "network_")
        self._check_parameters()
        self._start(table, X, y, again=again)
        seed = self._seed()
        indices = self._indices(targets, again=again)
        learning, held = self._split(indices, table.rows, seed)
        if not again:
            self.features_, self.left_out_ = infer_features(
                list(table.columns.values()), learning, self.numbers, _at(weights, learning)
            )
            if not self.features_:
                raise InvalidInputError(
                    "there is no column to learn from: " + "; ".join(map(" ".join, self.left_out_))
                )
            self._prepare_targets(indices[learning], _at(weights, learning))
            self._recipe = self._recipe_for(seed)
            self._rows = len(learning)
            self.network_ = self._built(len(learning))
        net, recipe = self.network_, self._recipe
        raw = table.matrix(self.features_)
        self._examples = raw[learning[:64]]
        validation: tuple[Any, ...] | None = None
        if len(held):
            validation = (self._encode(raw[held]), self._network_targets(indices[held]))
            if weights is not None:
                validation = (*validation, _at(weights, held))
        history = learn(
            net,
            recipe,
            self._encode(raw[learning]),
            self._network_targets(indices[learning]),
            weights=_at(weights, learning),
            validation=validation,
            verbose=self.verbose,
        )
        self.n_iter_ = len(history.epoch)
        self.loss_curve_ = history.history["loss"]
        self.validation_loss_curve_ = history.history.get("val_loss")
        self.best_loss_ = min(self.validation_loss_curve_ or self.loss_curve_)
        self.loss_ = self.loss_curve_[-1]
        self._calibrate(raw[held], indices[held], _at(weights, held))
        return self

    def _partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None) -> Self:
        table = self._table(X)
        targets = self._targets(y, table.rows)
        weights = self._class_weighted(targets, _weights(sample_weight, table.rows))
        first = not hasattr(self, "network_")
        self._check_parameters()
        self._start(table, X, y, again=not first)
        indices = self._indices(targets, again=True)
        seed = self._seed() if first else self.n_iter_
        learning, held = (
            self._split(indices, table.rows, seed)
            if self.early_stopping is True
            else (np.arange(table.rows), np.arange(0))
        )
        if first:
            self.features_, self.left_out_ = infer_features(
                list(table.columns.values()), learning, self.numbers
            )
            self._prepare_targets(indices[learning], None)
            self._recipe = self._recipe_for(seed)
            self._rows = len(learning)
            self._recipe = _one_pass(self._recipe.settled(self._rows))
            self.network_ = self._built(self._rows)
            self.n_iter_, self.best_loss_, self._waited = 0, np.inf, 0
            self.loss_curve_ = []
            self._best: list[Any] = []
        if self.early_stopping is True and self._waited >= self.n_iter_no_change:
            return self
        net = self.network_
        raw = table.matrix(self.features_)
        self._examples = raw[:64]
        given = None if weights is None else weights[learning]
        if given is None or given.sum() > 0:
            history = learn(
                net,
                self._recipe,
                self._encode(raw[learning]),
                self._network_targets(indices[learning]),
                weights=given,
            )
            self.loss_curve_ += history.history["loss"]
        self.n_iter_ += 1
        if len(held):
            loss = net.evaluate(
                self._encode(raw[held]), self._network_targets(indices[held]), return_dict=True
            )
            found = float(loss["loss"])  # type: ignore[index,call-overload] # a dict was asked for
            if found < self.best_loss_ - _TOLERANCE:
                self.best_loss_, self._waited, self._best = found, 0, net.get_weights()
            else:
                self._waited += 1
                if self._waited >= self.n_iter_no_change:
                    net.set_weights(self._best)
        return self

    def _start(self, table: Table, X: Any, y: Any, *, again: bool) -> None:
        """Note the columns, or check that they are those of the first time."""
        del y
        names = getattr(X, "columns", None)
        if again:
            self._check_columns(X)
            self._check_width(table)
            return
        self.n_features_in_ = len(table.columns)
        self.__dict__.pop("feature_names_in_", None)
        if names is not None and all(isinstance(name, str) for name in names):
            self.feature_names_in_ = np.array(list(names), object)

    def _recipe_for(self, seed: int) -> Recipe:
        sizes = self.hidden_layer_sizes
        auto: dict[str, Any] = {
            name: None if getattr(self, ours) == "auto" else getattr(self, ours)
            for name, ours in (
                ("batch_size", "batch_size"),
                ("epochs", "max_iter"),
                ("dropout", "dropout"),
                ("learning_rate", "learning_rate_init"),
            )
        }
        return Recipe(
            layers=(sizes,) if isinstance(sizes, int | np.integer) else tuple(sizes),
            activation=self.activation,
            batch_norm=self.batch_norm,
            optimizer=self.solver,
            schedule=self.learning_rate,
            weight_decay=self.weight_decay,
            l2=self.alpha,
            label_smoothing=getattr(self, "label_smoothing", 0.0),
            early_stopping=self.n_iter_no_change,
            seed=seed,
            **auto,
        )

    def _check_parameters(self) -> None:
        """Refuse values that no recipe would."""
        if not 0 < self.validation_fraction < 1:
            raise InvalidInputError(
                f"validation_fraction is {self.validation_fraction!r}: it must be within 0 and 1"
            )
        if self.early_stopping not in (True, False, "auto"):
            raise InvalidInputError(f"early_stopping is {self.early_stopping!r}: use True, False or 'auto'")
        self._recipe_for(0)

    def _seed(self) -> int:
        """Draw a whole number from ``random_state``."""
        if self.random_state is None:
            return int(np.random.default_rng().integers(1 << 31))
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(self.random_state.randint(1 << 31))

    def _split(self, indices: NDArray[Any], rows: int, seed: int) -> tuple[Rows, Rows]:
        """Return the rows to learn from, as they came, and those put aside."""
        wanted = rows >= SMALL if self.early_stopping == "auto" else self.early_stopping
        if not wanted:
            return np.arange(rows), np.arange(0)
        classes = indices if indices.ndim == 1 and self._estimator_type == "classifier" else None
        learning, held = stratified_split(
            classes, rows, self.validation_fraction, np.random.default_rng(seed)
        )
        if not len(learning) or not len(held):
            raise InvalidInputError(
                f"validation_fraction={self.validation_fraction} of {rows} rows leaves {len(learning)} to learn from and "
                f"{len(held)} to validate on"
            )
        return np.sort(learning), np.sort(held)

    def _built(self, rows: int) -> Sequential:
        outputs, units = self._outputs
        return build(self._recipe.settled(self._rows), self.features_, outputs, units, rows)

    def _encode(self, raw: Float64) -> NDArray[Any]:
        return encode(self.features_, raw, self.network_.dtype)

    # Predicting.

    def _raw_outputs(self, X: Any) -> Float64:
        """Return what the network gives: (rows, units) float64."""
        if not hasattr(self, "network_"):
            raise _not_fitted(self)
        self._check_columns(X)
        table = self._table(X)
        self._check_width(table)
        raw = table.matrix(self.features_)
        return np.asarray(self.network_.predict(self._encode(raw)), np.float64)

    def _check_width(self, table: Table) -> None:
        if len(table.columns) != self.n_features_in_:
            raise InvalidInputError(
                f"X has {len(table.columns)} features, but {type(self).__name__} is expecting {self.n_features_in_} "
                "features as input"
            )

    def _check_columns(self, X: Any) -> None:
        """Compare the names of the columns with those of ``fit``."""
        known = getattr(self, "feature_names_in_", None)
        names = getattr(X, "columns", None)
        if names is not None and not all(isinstance(name, str) for name in names):
            names = None
        who = type(self).__name__
        if known is None and names is not None:
            warnings.warn(f"X has feature names, but {who} was fitted without feature names", stacklevel=4)
        if known is not None and names is None:
            warnings.warn(
                f"X does not have valid feature names, but {who} was fitted with feature names", stacklevel=4
            )
        if known is None or names is None or list(names) == list(known):
            return
        message = "The feature names should match those that were passed during fit.\n"
        unseen, missing = sorted(set(names) - set(known)), sorted(set(known) - set(names))
        for title, listed in (("unseen at fit time", unseen), ("seen at fit time, yet now missing", missing)):
            if listed:
                more = ["- ...", ""] if len(listed) > 5 else [""]
                message += f"Feature names {title}:\n" + "\n".join(
                    [f"- {name}" for name in listed[:5]] + more
                )
        if not unseen and not missing:
            message += "Feature names must be in the same order as they were in fit.\n"
        raise InvalidInputError(message)

    def _table(self, X: Any) -> Table:
        """Return X as a table."""
        return table_of(X, getattr(self, "feature_names_in_", None))

    # Publishing.

    def export(
        self, store: Store | str | Path, name: str, *, record: Mapping[str, Any] | None = None
    ) -> Path:
        """Publish the estimator as the next version of a model and return the path of its file.

        What it does to raw rows travels with it: ``mariana serve`` answers raw rows as ``predict`` does.

        Args:
            store: the store or its folder.
            name: of the model.
            record: overrides parts of the training record, for example ``data`` or ``metrics``.
        """
        if not hasattr(self, "network_"):
            raise _not_fitted(self)
        return publish(
            self.network_,
            store,
            name,
            features=self.features_,
            examples=self._examples,
            record=dict(record or {}),
            **self._export_arguments(),
        )

    # What the two differ in.

    _outputs: tuple[Outputs, int]

    def _targets(self, y: Any, rows: int) -> NDArray[Any]:
        """Check y."""
        return _checked_targets(self, y, rows)

    def _class_weighted(self, targets: NDArray[Any], weights: Float64 | None) -> Float64 | None:
        del targets
        return weights

    def _indices(self, targets: NDArray[Any], *, again: bool) -> NDArray[Any]:
        raise NotImplementedError

    def _prepare_targets(self, indices: NDArray[Any], weights: Float64 | None) -> None:
        raise NotImplementedError

    def _network_targets(self, indices: NDArray[Any]) -> NDArray[Any]:
        raise NotImplementedError

    def _calibrate(self, raw: Float64, indices: NDArray[Any], weights: Float64 | None) -> None:
        """Regression has nothing to calibrate."""

    def _export_arguments(self) -> dict[str, Any]:
        raise NotImplementedError


class DNNClassifier(_Estimator):
    """A dense network that predicts classes, or labels that go together.

    Args:
        class_weight: how much the rows of each class count: a mapping, or ``balanced``: as if all classes were equally
            frequent. None: as they are.
        label_smoothing: how far the targets are moved from 0 and 1 towards each other; 0 to below 1.
        calibrate: whether probabilities are calibrated on the rows put aside, where there are such.
        arguments: see the list of the shared arguments.

    Attributes:
        classes_: the classes, sorted; for several labels (rows, labels) their numbers.
        network_: the trained :class:`Sequential`.
        features_: how each column becomes what the network sees.
        left_out_: columns that are not learned from, with the reason.
        n_features_in_, feature_names_in_, n_iter_, loss_curve_, validation_loss_curve_, best_loss_, loss_: as scikit-learn.
        temperature_: what the logits were divided by to calibrate; 1 where nothing was.

    Example:
        >>> from mariana.datasets import load_iris
        >>> x, y = load_iris()
        >>> classifier = DNNClassifier(random_state=0).fit(x, y)
        >>> bool(classifier.score(x, y) > 0.9)
        True
    """

    _estimator_type = "classifier"

    def __init__(
        self,
        hidden_layer_sizes: int | tuple[int, ...] = (256, 256, 256),
        activation: str = "tanh",
        *,
        solver: str = "adam",
        alpha: float = 0.0,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: Literal["cosine", "constant"] = "cosine",
        learning_rate_init: float | Literal["auto"] = "auto",
        max_iter: int | Literal["auto"] = "auto",
        random_state: Any = None,
        verbose: Literal[0, 1, 2] = 0,
        warm_start: bool = False,
        early_stopping: bool | Literal["auto"] = "auto",
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 20,
        dropout: float | Literal["auto"] = "auto",
        batch_norm: bool = False,
        weight_decay: float = 0.0,
        numbers: Numbers = "auto",
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        label_smoothing: float = 0.0,
        calibrate: bool = True,
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
            activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            max_iter=max_iter,
            random_state=random_state,
            verbose=verbose,
            warm_start=warm_start,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            dropout=dropout,
            batch_norm=batch_norm,
            weight_decay=weight_decay,
            numbers=numbers,
        )
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.calibrate = calibrate

    def partial_fit(
        self,
        X: Any,
        y: Any,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn from these rows once, going on from the last call.

        The first call decides how columns are encoded. With ``early_stopping=True`` a share of each call's rows is not
        learned from; when their loss has not fallen for ``n_iter_no_change`` calls, the best weights come back and later
        calls change nothing.

        Args:
            X: (rows, columns).
            y: (rows,) classes, or (rows, labels).
            classes: all classes that will ever come; needed in the first call.
            sample_weight: (rows,).
        """
        if not hasattr(self, "network_"):
            if classes is None:
                raise InvalidInputError("classes must be passed on the first call to partial_fit.")
            self.classes_ = np.unique(np.asarray(classes))
            self._multilabel = np.ndim(y) == 2 and np.shape(y)[1] > 1
        elif classes is not None and not np.array_equal(np.unique(np.asarray(classes)), self.classes_):
            raise InvalidInputError(f"`classes={classes}` is not the same as on last call to partial_fit")
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row (rows,); for labels 0 or 1 of each (rows, labels)."""
        p = self._raw_outputs(X)
        if self._multilabel:
            return (p > 0.5).astype(int)
        best = (p[:, 0] > 0.5).astype(int) if p.shape[1] == 1 else p.argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: Any) -> Float64:
        """Return probabilities (rows, classes); for labels that of each (rows, labels)."""
        p = self._raw_outputs(X)
        if self._multilabel:
            return p
        return np.hstack([1 - p, p]) if p.shape[1] == 1 else p / p.sum(axis=1, keepdims=True)

    def predict_log_proba(self, X: Any) -> Float64:
        """Return the logarithm of the probabilities."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return the share of rows that are right; of several labels, all of them."""
        right = np.asarray(self.predict(X)) == np.asarray(y)
        if right.ndim == 2:
            right = right.all(axis=1)
        return float(np.average(right, weights=None if sample_weight is None else np.asarray(sample_weight)))

    def _targets(self, y: Any, rows: int) -> NDArray[Any]:
        targets = _checked_targets(self, y, rows)
        if targets.dtype.kind == "f" and (targets != np.floor(targets)).any():
            raise InvalidInputError(
                "Unknown label type: continuous. Maybe you are trying to fit a classifier, which expects discrete classes "
                "on a regression target with continuous values."
            )
        return targets

    def _class_weighted(self, targets: NDArray[Any], weights: Float64 | None) -> Float64 | None:
        if self.class_weight is None or targets.ndim == 2:
            return weights
        weights = np.ones(len(targets)) if weights is None else weights
        classes, place = np.unique(targets, return_inverse=True)
        if isinstance(self.class_weight, str):
            if self.class_weight != "balanced":
                raise InvalidInputError(
                    f"class_weight is {self.class_weight!r}: use 'balanced', a mapping or None"
                )
            counts = np.bincount(place, weights)
            return np.asarray(weights * (weights.sum() / len(classes) / np.maximum(counts, 1e-300))[place])
        found = np.array([float(self.class_weight.get(label, 1)) for label in classes.tolist()])
        return np.asarray(weights * found[place])

    def _indices(self, targets: NDArray[Any], *, again: bool) -> NDArray[Any]:
        if not again:
            self._multilabel = targets.ndim == 2
            self.classes_ = np.arange(targets.shape[1]) if self._multilabel else np.unique(targets)
        if self._multilabel:
            if targets.ndim != 2 or not np.isin(targets, (0, 1)).all():
                raise InvalidInputError("several labels (rows, labels) must be 0 or 1 each")
            self._outputs = ("labels", targets.shape[1])
            return targets.astype(np.float64)
        if len(self.classes_) < 2:
            raise InvalidInputError(
                f"a classifier needs at least two classes, but all rows with a weight are of one class: {self.classes_!r}"
            )
        self._outputs = ("binary", 1) if len(self.classes_) == 2 else ("classes", len(self.classes_))
        places = np.searchsorted(self.classes_, targets).clip(max=len(self.classes_) - 1)
        if (self.classes_[places] != targets).any():
            unknown = targets[self.classes_[places] != targets][0]
            raise InvalidInputError(
                f"`y` has classes not in `self.classes_`: {unknown!r} is none of {self.classes_!r}"
            )
        return np.asarray(places, np.int64)

    def _prepare_targets(self, indices: NDArray[Any], weights: Float64 | None) -> None:
        del indices, weights
        self.temperature_ = 1.0

    def _network_targets(self, indices: NDArray[Any]) -> NDArray[Any]:
        return indices

    def _calibrate(self, raw: Float64, indices: NDArray[Any], weights: Float64 | None) -> None:
        if not self.calibrate or not len(raw) or self._multilabel:
            return
        z = logits(self.network_.predict(self._encode(raw)))
        found = find_temperature(z, indices, weights)
        apply_temperature(self.network_, found)
        self.temperature_ = found if not self.warm_start else self.temperature_ * found

    def _export_arguments(self) -> dict[str, Any]:
        if self._multilabel:
            return {"targets": [f"label{label}" for label in self.classes_], "task": "regression"}
        labels: list[Label] = [
            str(label) if not isinstance(label, int) else label for label in _plain(self.classes_)
        ]
        return {"labels": labels, "targets": ["class"]}


class DNNRegressor(_Estimator):
    """A dense network that predicts one number, or several.

    Args:
        arguments: see the list of the shared arguments.

    Attributes:
        network_: the trained :class:`Sequential`.
        features_: how each column becomes what the network sees.
        target_scaling_: how its outputs become values.
        left_out_: columns that are not learned from, with the reason.
        n_features_in_, feature_names_in_, n_iter_, loss_curve_, validation_loss_curve_, best_loss_, loss_: as scikit-learn.

    Example:
        >>> import numpy as np
        >>> x = np.linspace(-1, 1, 200).reshape(-1, 1)
        >>> regressor = DNNRegressor(random_state=0).fit(x, 2 * x[:, 0])
        >>> bool(regressor.score(x, 2 * x[:, 0]) > 0.99)
        True
    """

    _estimator_type = "regressor"

    def partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from these rows once, going on from the last call.

        The first call decides how columns and the target are scaled. ``early_stopping`` as in the classifier.
        """
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> Float64:
        """Return the predicted numbers: (rows,), or (rows, targets)."""
        outputs = self._raw_outputs(X)
        values = outputs * np.array(self.target_scaling_.scale) + np.array(self.target_scaling_.shift)
        return np.asarray(values[:, 0] if self._flat else values)

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return R², the share of the variance that is explained; of several targets the mean."""
        truth, values = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (y, self.predict(X)))
        weights = None if sample_weight is None else np.asarray(sample_weight, np.float64)
        return float(
            np.mean([regression_scores(v, t, weights)["r2"] for v, t in zip(values.T, truth.T, strict=True)])
        )

    def _indices(self, targets: NDArray[Any], *, again: bool) -> NDArray[Any]:
        if targets.dtype.kind not in "biuf":
            raise InvalidInputError(f"y holds {targets.dtype}: a regressor predicts numbers")
        if not again or not hasattr(self, "_flat"):
            self._flat = targets.ndim == 1
            self._outputs = ("numbers", 1 if self._flat else targets.shape[1])
        return targets.astype(np.float64).reshape(len(targets), -1)

    def _prepare_targets(self, indices: NDArray[Any], weights: Float64 | None) -> None:
        self.target_scaling_: TargetScaling = target_scaling(indices, weights)

    def _network_targets(self, indices: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(
            (indices - np.array(self.target_scaling_.shift)) / np.array(self.target_scaling_.scale)
        )

    def _export_arguments(self) -> dict[str, Any]:
        units = self._outputs[1]
        names = ["value"] if units == 1 else [f"value{i}" for i in range(units)]
        return {"targets": names, "target_scaling": self.target_scaling_}


def _one_pass(recipe: Recipe) -> Recipe:
    """Return the recipe for one call of ``partial_fit``."""
    return replace(recipe, epochs=1, schedule="constant", early_stopping=0)


def _plain(labels: NDArray[Any]) -> list[Any]:
    """Return labels as Python's; whole floats and booleans as integers."""
    if labels.dtype.kind in "bf":
        labels = labels.astype(np.int64)
    return list(labels.tolist())


def _at(weights: Float64 | None, rows: Rows) -> Float64 | None:
    return None if weights is None else weights[rows]


def _weights(sample_weight: ArrayLike | None, rows: int) -> Float64 | None:
    """Check weights; None stays None."""
    if sample_weight is None:
        return None
    if isinstance(sample_weight, int | float):
        return np.full(rows, float(sample_weight))
    weights = np.asarray(sample_weight, np.float64)
    if weights.ndim != 1:
        raise InvalidInputError(f"Sample weights must be 1D array or scalar, found shape {weights.shape}")
    if len(weights) != rows:
        raise InvalidInputError(f"sample_weight.shape == {weights.shape}, expected ({rows},)!")
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise InvalidInputError("sample_weight must be finite, not negative, and not all zero")
    return weights


def _checked_targets(estimator: _Estimator, y: Any, rows: int) -> NDArray[Any]:
    """Return y as an array (rows,) or (rows, outputs) without missing values."""
    if y is None:
        raise InvalidInputError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None"
        )
    targets = np.asarray(y)
    if targets.dtype.kind == "c":
        raise InvalidInputError("Complex data not supported: y must be real numbers or classes")
    if targets.ndim == 2 and targets.shape[1] == 1:
        _warn_column_vector()
        targets = targets[:, 0]
    if targets.ndim not in (1, 2) or len(targets) != rows:
        raise InvalidInputError(
            f"Found input variables with inconsistent numbers of samples: X has {rows} rows, y has shape {targets.shape}"
        )
    if targets.dtype.kind == "f" and not np.isfinite(targets).all():
        raise InvalidInputError("Input y contains NaN or infinity: each row needs its target")
    if targets.dtype.kind == "O":
        if any(value is None or value != value for value in targets.ravel()):  # noqa: PLR0124 - NaN is not itself
            raise InvalidInputError("Input y contains NaN: each row needs its target")
        numbers = all(isinstance(value, bool | int | float | np.generic) for value in targets.ravel())
        targets = np.array(targets.tolist()) if numbers else targets.astype(str)
    return targets


def _warn_column_vector() -> None:
    """Warn as scikit-learn does, with its class of warning where that is loaded."""
    exceptions = sys.modules.get("sklearn.exceptions")
    category = UserWarning if exceptions is None else exceptions.DataConversionWarning
    message = "A column-vector y was passed when a 1d array was expected. Please change the shape of y to (n_samples,)"
    warnings.warn(message, category, stacklevel=5)


def _not_fitted(estimator: _Estimator) -> Exception:
    """Return scikit-learn's own error where that is loaded."""
    message = f"This {type(estimator).__name__} instance is not fitted yet; call fit first"
    exceptions = sys.modules.get("sklearn.exceptions")
    return InvalidInputError(message) if exceptions is None else exceptions.NotFittedError(message)
