"""Write ``keras.onnx`` and ``keras.npz``: a network as Keras exports it, and what Keras says of some rows.

They stand in the repository so that the import is tested where Keras is not installed. To make them again:
``pip install keras tensorflow-cpu tf2onnx && python tests/parity/golden/make_keras.py``.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from keras import layers

HERE = Path(__file__).parent
BATCH = 16


def network() -> keras.Sequential:
    """Return a network with every layer of Keras that the import knows, its statistics and slopes used."""
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(0)
    net = keras.Sequential(
        [
            layers.Input((2, 3)),
            layers.Flatten(),
            layers.Rescaling(0.5, offset=0.25),
            layers.Dense(8, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(6, activation="gelu"),
            layers.Dense(5, activation="swish"),
            layers.Dense(5),
            layers.PReLU(),
            layers.Dense(5, activation="elu"),
            layers.Dense(5),
            layers.LeakyReLU(negative_slope=0.1),
            layers.Dense(5, activation="selu"),
            layers.Dense(5, activation="softplus"),
            layers.Dense(5, use_bias=False, activation="tanh"),
            layers.Dense(5, activation="sigmoid"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    for weight in net.weights:
        if weight.name not in ("kernel", "seed_generator_state"):
            weight.assign(rng.uniform(0.1, 1, weight.shape))
    return net


if __name__ == "__main__":
    net = network()
    x = np.random.default_rng(1).standard_normal((BATCH, 2, 3)).astype(np.float32)
    np.savez(HERE / "keras.npz", x=x, y=net.predict(x, verbose=0))
    net.export(HERE / "keras.onnx", format="onnx", verbose=False)
