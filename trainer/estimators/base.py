"""What both estimators share: a table becomes targets and inputs, and a committee learns them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mariana.errors import InvalidInputError
from mariana.store import Store
from mariana.tables import Table, table_of

from .. import checks
from ..committee import Committee
from ..data import stratified_split
from ..export import publish
from ..preprocessing import Numbers, encode, infer_features
from ..recipe import SMALL, Outputs, Recipe, build, learn
from ..sequential import Sequential
from .arguments import Arguments
from .inputs import Float64, Rows, at, check_columns, check_width, checked_targets, checked_weights

_TOLERANCE = 1e-12


class Estimator(Arguments):
    """How they learn and publish."""

    @property
    def network_(self) -> Sequential:
        """What answers: the members merged into one, and calibrated."""
        return self.committee_.network

    def __getstate__(self) -> dict[str, Any]:
        """The networks' arrays are views into one vector, which a pickle would tear apart: weights travel instead."""
        state = self.__dict__.copy()
        committee = state.pop("committee_", None)
        if committee is not None:
            records = [member.training for member in committee.members]
            state["_weights"] = (
                committee.get_weights(),
                self.network_.get_weights(),
                records,
                committee.dtype.name,
            )
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        saved = state.pop("_weights", None)
        self.__dict__.update(state)
        if saved is not None:
            members, merged, records, dtype = saved
            self.committee_ = self._built(SMALL if dtype == "float32" else 1)
            for member, record in zip(self.committee_.members, records, strict=True):
                member.training = record
            self.committee_.set_weights(members)
            self.network_.set_weights(merged)

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
        weights = checked_weights(sample_weight, table.rows)
        weights = self._class_weighted(targets, weights)
        if weights is not None and not (weights > 0).all():  # as good as absent
            kept = np.flatnonzero(weights > 0)
            table, targets, weights = table.take(kept), targets[kept], weights[kept]
        again = self.warm_start and self.__sklearn_is_fitted__()
        self._check_parameters()
        self._start(table, X, y, again=again)
        seed = self._seed()
        indices = self._indices(targets, again=again)
        learning, held = self._split(indices, table.rows, seed)
        if not again:
            self.features_, self.left_out_ = infer_features(
                list(table.columns.values()), learning, self.numbers, at(weights, learning)
            )
            if not self.features_:
                raise InvalidInputError(
                    "there is no column to learn from: " + "; ".join(map(" ".join, self.left_out_))
                )
            self._prepare_targets(indices[learning], at(weights, learning))
            self._recipe = self._recipe_for(seed)
            self._rows = len(learning)
            self.committee_ = self._built(len(learning))
        raw = table.matrix(self.features_)
        self._examples = raw[learning[:64]]
        validation: tuple[Any, ...] | None = None
        if len(held):
            validation = (self._encode(raw[held]), self._network_targets(indices[held]))
            if weights is not None:
                validation = (*validation, at(weights, held))
        history = learn(
            self.committee_,
            self._recipe,
            self._encode(raw[learning]),
            self._network_targets(indices[learning]),
            weights=at(weights, learning),
            validation=validation,
            verbose=self.verbose,
        )[0]
        self.n_iter_ = len(history.epoch)
        self.loss_curve_ = history.history["loss"]
        self.validation_loss_curve_ = history.history.get("val_loss")
        self.best_loss_ = min(self.validation_loss_curve_ or self.loss_curve_)
        self.loss_ = self.loss_curve_[-1]
        self._calibrate(raw[held], indices[held], at(weights, held))
        return self

    def _partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None) -> Self:
        table = self._table(X)
        targets = self._targets(y, table.rows)
        weights = self._class_weighted(targets, checked_weights(sample_weight, table.rows))
        first = not self.__sklearn_is_fitted__()
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
            self.committee_ = self._built(self._rows)
            self.n_iter_, self.best_loss_, self._waited = 0, np.inf, 0
            self.loss_curve_ = []
            self._best: list[Any] = []
        if self.early_stopping is True and self._waited >= self.n_iter_no_change:
            return self
        raw = table.matrix(self.features_)
        self._examples = raw[:64]
        given = None if weights is None else weights[learning]
        if given is None or given.sum() > 0:
            history = learn(
                self.committee_,
                self._recipe,
                self._encode(raw[learning]),
                self._network_targets(indices[learning]),
                weights=given,
            )[0]
            self.loss_curve_ += history.history["loss"]
        self.n_iter_ += 1
        if len(held):
            loss = self.network_.evaluate(
                self._encode(raw[held]), self._network_targets(indices[held]), return_dict=True
            )
            found = float(loss["loss"])  # type: ignore[index,call-overload] # a dict was asked for
            if found < self.best_loss_ - _TOLERANCE:
                self.best_loss_, self._waited, self._best = found, 0, self.committee_.get_weights()
            else:
                self._waited += 1
                if self._waited >= self.n_iter_no_change:
                    self.committee_.set_weights(self._best)
        return self

    def _start(self, table: Table, X: Any, y: Any, *, again: bool) -> None:
        """Note the columns, or check that they are those of the first time."""
        del y
        names = getattr(X, "columns", None)
        if again:
            check_columns(self, X)
            check_width(self, table)
            return
        self.n_features_in_ = len(table.columns)
        self.__dict__.pop("feature_names_in_", None)
        if names is not None and all(isinstance(name, str) for name in names):
            self.feature_names_in_ = np.array(list(names), object)

    def _recipe_for(self, seed: int) -> Recipe:
        sizes: Any = self.hidden_layer_sizes
        if isinstance(sizes, int | np.integer):
            sizes = (sizes,)
        if not isinstance(sizes, list | tuple | np.ndarray) and sizes != "auto":
            raise InvalidInputError(
                f"hidden_layer_sizes is {sizes!r:.60}: use 'auto', or the units of each hidden layer, for example (64, 32)"
            )
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
            layers=None if isinstance(sizes, str) else tuple(sizes),
            activation=self.activation,
            batch_norm=self.batch_norm,
            optimizer=self.solver,
            schedule=self.learning_rate,
            weight_decay=self.weight_decay,
            l2=self.alpha,
            label_smoothing=getattr(self, "label_smoothing", 0.0),
            early_stopping=self.n_iter_no_change,
            members=self.members,
            seed=seed,
            **auto,
        )

    def _check_parameters(self) -> None:
        """Refuse values that no recipe would."""
        checks.number("validation_fraction", self.validation_fraction, 0, 1, above=True)
        if self.numbers not in get_args(Numbers):
            raise InvalidInputError(
                f"numbers is {self.numbers!r:.60}: use {' or '.join(map(repr, get_args(Numbers)))}"
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
        if isinstance(self.random_state, np.random.RandomState):
            return int(self.random_state.randint(1 << 31))
        raise InvalidInputError(
            f"random_state is {self.random_state!r:.60}: use a whole number, a numpy.random.RandomState, or None"
        )

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

    def _built(self, rows: int) -> Committee:
        outputs, units = self._outputs
        return build(self._recipe.settled(self._rows), self.features_, outputs, units, rows)

    def _encode(self, raw: Float64) -> NDArray[Any]:
        return encode(self.features_, raw, self.network_.dtype)

    # Predicting.

    def _raw_outputs(self, X: Any) -> Float64:
        """Return what the network gives: (rows, units) float64."""
        self._check_fitted()
        check_columns(self, X)
        table = self._table(X)
        check_width(self, table)
        raw = table.matrix(self.features_)
        return np.asarray(self.network_.predict(self._encode(raw)), np.float64)

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
        self._check_fitted()
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
        return checked_targets(self, y, rows)

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


def _one_pass(recipe: Recipe) -> Recipe:
    """Return the recipe for one call of ``partial_fit``."""
    return replace(recipe, epochs=1, schedule="constant", early_stopping=0)
