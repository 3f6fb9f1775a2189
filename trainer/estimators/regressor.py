"""The regressor: one number, or several."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mariana.errors import InvalidInputError
from mariana.format import TargetScaling

from ..preprocessing import target_scaling
from ..scores import regression_scores
from .base import Estimator
from .inputs import Float64


class DNNRegressor(Estimator):
    """A dense network that predicts one number, or several.

    Args:
        arguments: those of :class:`~mariana.trainer.estimators.arguments.Arguments`.

    Attributes:
        committee_: the members, each a :class:`Sequential`.
        network_: the :class:`Sequential` that they make together, which answers.
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
