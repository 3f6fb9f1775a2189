"""Networks, losses and optimizers from scratch on NumPy; names and meanings follow Keras 3.

It trains without the compiled kernel; what it exports is what the kernel runs.
"""

from __future__ import annotations

from .activations import CustomActivation
from .augmentation import (
    FeatureDropout,
    MixUp,
    RandomErasing,
    RandomFlip,
    RandomNoise,
    RandomRotation,
    RandomTranslation,
    RandomZoom,
)
from .backend import use_backend
from .callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    History,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
)
from .checkpoints import BackupAndRestore
from .diagnosis import Diagnosis, find_learning_rate
from .estimators import DNNClassifier, DNNRegressor
from .gradcheck import gradcheck
from .initializers import (
    Constant,
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    Ones,
    Orthogonal,
    RandomNormal,
    RandomUniform,
    TruncatedNormal,
    Zeros,
)
from .layers import (
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Input,
    PReLU,
    Rescaling,
)
from .losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CustomLoss,
    Hinge,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    Poisson,
    SparseCategoricalCrossentropy,
)
from .metrics import AUC, F1Score, Precision, Recall, TopKAccuracy
from .network import set_random_seed
from .optimizers import SGD, Adagrad, Adam, Adamax, AdamW, Nadam, RMSprop
from .plots import LivePlot
from .regularizers import L1, L1L2, L2, MaxNorm
from .schedules import (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    OneCycle,
    PiecewiseConstantDecay,
    PolynomialDecay,
    StepDecay,
    WarmUp,
)
from .sequential import Sequential
from .tensorboard import TensorBoard
from .threads import use_threads

__all__ = [
    "AUC",
    "L1",
    "L1L2",
    "L2",
    "SGD",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "BackupAndRestore",
    "BatchNormalization",
    "BinaryCrossentropy",
    "CSVLogger",
    "Callback",
    "CategoricalCrossentropy",
    "Constant",
    "CosineDecay",
    "CosineDecayRestarts",
    "CustomActivation",
    "CustomLoss",
    "DNNClassifier",
    "DNNRegressor",
    "Dense",
    "Diagnosis",
    "Dropout",
    "EarlyStopping",
    "ExponentialDecay",
    "F1Score",
    "FeatureDropout",
    "Flatten",
    "GaussianNoise",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Hinge",
    "History",
    "Huber",
    "Input",
    "InverseTimeDecay",
    "LambdaCallback",
    "LearningRateScheduler",
    "LecunNormal",
    "LecunUniform",
    "LivePlot",
    "MaxNorm",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "MixUp",
    "ModelCheckpoint",
    "Nadam",
    "OneCycle",
    "Ones",
    "Orthogonal",
    "PReLU",
    "PiecewiseConstantDecay",
    "Poisson",
    "PolynomialDecay",
    "Precision",
    "RMSprop",
    "RandomErasing",
    "RandomFlip",
    "RandomNoise",
    "RandomNormal",
    "RandomRotation",
    "RandomTranslation",
    "RandomUniform",
    "RandomZoom",
    "Recall",
    "ReduceLROnPlateau",
    "Rescaling",
    "Sequential",
    "SparseCategoricalCrossentropy",
    "StepDecay",
    "TensorBoard",
    "TopKAccuracy",
    "TruncatedNormal",
    "WarmUp",
    "Zeros",
    "find_learning_rate",
    "gradcheck",
    "set_random_seed",
    "use_backend",
    "use_threads",
]
