"""The arguments that both estimators take: named as those of scikit-learn's networks where these have them."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from ..preprocessing import Numbers
from .interface import Interface


@dataclass(eq=False, repr=False)
class Arguments(Interface):
    """How an estimator learns; the defaults need no tuning.

    Args:
        hidden_layer_sizes: units of each hidden layer of a member; ``auto``: 128, 128 and 128, below 1,000 rows one layer of
            64.
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
        members: networks that are learned, each from weights and an order of its own; their mean answers.
        numbers: ``auto``: robust and piecewise linear; ``standard``: mean 0 and variance 1.
    """

    hidden_layer_sizes: int | tuple[int, ...] | Literal["auto"] = "auto"
    activation: str = "tanh"
    _: KW_ONLY
    solver: str = "adam"
    alpha: float = 0.0
    batch_size: int | Literal["auto"] = "auto"
    learning_rate: Literal["cosine", "constant"] = "cosine"
    learning_rate_init: float | Literal["auto"] = "auto"
    max_iter: int | Literal["auto"] = "auto"
    random_state: Any = None
    verbose: Literal[0, 1, 2] = 0
    warm_start: bool = False
    early_stopping: bool | Literal["auto"] = "auto"
    validation_fraction: float = 0.1
    n_iter_no_change: int = 20
    dropout: float | Literal["auto"] = "auto"
    batch_norm: bool = False
    weight_decay: float = 0.0
    members: int = 4
    numbers: Numbers = "auto"
