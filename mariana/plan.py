"""A network as plain arrays: all that it takes to run it, and nothing else.

``mariana.format`` makes a plan from a model's document, ``mariana.sealed`` reads the one that a file carries,
``mariana._binding`` hands it to C. The classes are plain ones: making a named tuple takes longer than loading a network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]
    UInt32 = NDArray[np.uint32]

FORMS = {"linear": 0, "soft": 1, "ramp": 2, "missing": 3}
"""What an encoded column can be, and its number in ``csrc/mrn.h``, which tells of each."""


class Layer:
    """One dense layer: ``activation(x @ weight + bias)``.

    Attributes:
        weight: (inputs, units); float32, bfloat16 as uint16, or int8, as the network's precision wants.
        bias: (units,); None: zeros.
        activation: its name.
        slope: (units,) for leaky_relu, elu and prelu; else None.
        weight_scale: (units,); int8: what 1 stands for.
    """

    __slots__ = ("activation", "bias", "slope", "weight", "weight_scale")

    def __init__(
        self,
        weight: NDArray[Any],
        bias: Float32 | None,
        activation: str,
        slope: Float32 | None = None,
        weight_scale: Float32 | None = None,
    ) -> None:
        self.weight = weight
        self.bias = bias
        self.activation = activation
        self.slope = slope
        self.weight_scale = weight_scale


class Tables:
    """What happens to a row before the layers and to the outputs after them; None skips a step.

    ``csrc/mrn.h`` says in which order and how, at ``mrn_network``.

    Attributes:
        categories: (columns,); 0: numeric, n: one of n categories.
        copies: (columns,); encoded columns that a numeric one becomes.
        forms: (encoded columns,); numbers of ``FORMS``.
        fill: (columns,).
        shift: (encoded columns,).
        scale: (encoded columns,).
        target_shift: (outputs,).
        target_scale: (outputs,).
    """

    __slots__ = ("categories", "copies", "fill", "forms", "scale", "shift", "target_scale", "target_shift")

    def __init__(
        self,
        *,
        categories: UInt32 | None = None,
        copies: UInt32 | None = None,
        forms: UInt32 | None = None,
        fill: Float32 | None = None,
        shift: Float32 | None = None,
        scale: Float32 | None = None,
        target_shift: Float32 | None = None,
        target_scale: Float32 | None = None,
    ) -> None:
        self.categories = categories
        self.copies = copies
        self.forms = forms
        self.fill = fill
        self.shift = shift
        self.scale = scale
        self.target_shift = target_shift
        self.target_scale = target_scale

    def present(self) -> dict[str, NDArray[Any]]:
        """Return the tables that are there, by name."""
        found = ((name, getattr(self, name)) for name in self.__slots__)
        return {name: table for name, table in found if table is not None}


class Plan:
    """A whole network.

    Attributes:
        precision: of the weights: ``float32``, ``bfloat16`` or ``int8``.
        input_shape: of one row before it was made flat; its product is the number of raw columns.
        layers: one after the other.
        tables: around them.
        golden_inputs: (rows, columns) raw rows, NaN for a missing value.
        golden_outputs: (rows, outputs) what they must give.
    """

    __slots__ = ("golden_inputs", "golden_outputs", "input_shape", "layers", "precision", "tables")

    def __init__(
        self,
        precision: str,
        input_shape: tuple[int, ...],
        layers: Sequence[Layer],
        tables: Tables,
        golden_inputs: Float32,
        golden_outputs: Float32,
    ) -> None:
        self.precision = precision
        self.input_shape = input_shape
        self.layers = layers
        self.tables = tables
        self.golden_inputs = golden_inputs
        self.golden_outputs = golden_outputs
