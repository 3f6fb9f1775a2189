"""From a checked document and its tensors to the arrays that run: the one place where this is said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mariana.format.schema import SLOPES, CategoricalFeature, DenseLayer, Form, ModelMetadata
from mariana.plan import FORMS, Layer, Plan, Tables

_MISSING = math.nan


def plan_of(metadata: ModelMetadata, tensors: Mapping[str, NDArray[Any]]) -> Plan:
    """Return what runs a network.

    Args:
        metadata: of the network.
        tensors: by name, of the types and shapes that ``metadata.tensor_types()`` says.
    """
    layers = [
        Layer(
            tensors[f"{layer.name}.weight"],
            tensors[f"{layer.name}.bias"] if layer.use_bias else None,
            layer.activation,
            slopes_of(layer, tensors),
            tensors.get(f"{layer.name}.weight_scale"),
        )
        for layer in metadata.layers
    ]
    golden = metadata.golden
    inputs = [[_MISSING if value is None else value for value in row] for row in golden.inputs]
    return Plan(
        metadata.precision,
        metadata.input_shape,
        layers,
        tables_of(metadata),
        np.array(inputs, np.float32).reshape(-1, metadata.columns),
        np.array(golden.outputs, np.float32).reshape(-1, metadata.outputs),
    )


def slopes_of(layer: DenseLayer, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32] | None:
    """Return the slope of each unit of a layer whose activation has one."""
    if layer.activation in SLOPES:
        slope = SLOPES[layer.activation] if layer.slope is None else layer.slope
        return np.full(layer.units, slope, np.float32)
    return tensors.get(f"{layer.name}.slope")


def tables_of(info: ModelMetadata) -> Tables:
    """Return what happens around the layers; a table that would change nothing is None."""
    categories, fill, copies = [], [], []
    encoded: list[tuple[Form, float, float]] = []
    for feature in info.features:
        if isinstance(feature, CategoricalFeature):
            categories.append(feature.width)
            fill.append(_MISSING if feature.fill is None else feature.categories.index(feature.fill))
            encoded += [("linear", 0.0, 1.0)] * feature.width
        else:
            categories.append(0)
            fill.append(_MISSING if feature.fill is None else float(feature.fill))
            encoded += feature.encoding
        copies.append(feature.width)
    forms, shift, scale = zip(*encoded, strict=True)
    target = info.target_scaling
    return Tables(
        categories=np.array(categories, np.uint32) if any(categories) else None,
        fill=None if all(math.isnan(value) for value in fill) else np.array(fill, np.float32),
        copies=None
        if all(c or n == 1 for c, n in zip(categories, copies, strict=True))
        else np.array(copies, np.uint32),
        forms=None if set(forms) == {"linear"} else np.array([FORMS[form] for form in forms], np.uint32),
        shift=np.array(shift, np.float32) if any(shift) else None,
        scale=np.array(scale, np.float32) if any(value != 1.0 for value in scale) else None,
        target_shift=None if target is None else np.array(target.shift, np.float32),
        target_scale=None if target is None else np.array(target.scale, np.float32),
    )
