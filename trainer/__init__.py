"""Networks, losses and optimizers from scratch on NumPy; names and meanings follow Keras 3.

It trains without the compiled kernel; what it exports is what the kernel runs.
"""

from __future__ import annotations

from .callbacks import Callback, EarlyStopping, History, LearningRateScheduler, ReduceLROnPlateau
from .estimators import DNNClassifier, DNNRegressor
from .gradcheck import gradcheck
from .initializers import GlorotNormal, GlorotUniform, HeNormal, HeUniform, Ones, Zeros
from .layers import Activation, BatchNormalization, Dense, Dropout, Input
from .losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)
from .optimizers import SGD, Adagrad, Adam, Adamax, AdamW, Nadam, RMSprop
from .schedules import CosineDecay, ExponentialDecay, PolynomialDecay, StepDecay, WarmUp
from .sequential import Sequential, set_random_seed

__all__ = [
    "SGD",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "BatchNormalization",
    "BinaryCrossentropy",
    "Callback",
    "CategoricalCrossentropy",
    "CosineDecay",
    "DNNClassifier",
    "DNNRegressor",
    "Dense",
    "Dropout",
    "EarlyStopping",
    "ExponentialDecay",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "History",
    "Input",
    "LearningRateScheduler",
    "MeanSquaredError",
    "Nadam",
    "Ones",
    "PolynomialDecay",
    "RMSprop",
    "ReduceLROnPlateau",
    "Sequential",
    "SparseCategoricalCrossentropy",
    "StepDecay",
    "WarmUp",
    "Zeros",
    "gradcheck",
    "set_random_seed",
]
