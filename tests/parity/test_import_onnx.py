"""Networks that others wrote as ONNX, imported: ONNX Runtime and ours agree within 1e-5."""

import io
import json
import runpy
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mariana.errors import FileFormatError, InvalidInputError
from mariana.exchange.from_onnx import Imported, import_onnx
from mariana.exchange.to_onnx import to_onnx
from mariana.format import DenseLayer, ModelFile, ModelMetadata, NumericFeature, read_model, to_bytes
from mariana.model import Model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
FLOAT = onnx.TensorProto.FLOAT
RANDOM = np.random.default_rng(5)


def weight(*shape: int) -> NDArray[np.float32]:
    return (RANDOM.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def graph(
    nodes: Sequence[tuple[Any, ...]],
    *,
    columns: Any = 4,
    outputs: Any = 3,
    constants: dict[str, Any] | None = None,
    opset: int = 17,
) -> bytes:
    """Return an ONNX file; a node is (operator, inputs, output, attributes)."""
    made = [
        onnx.helper.make_node(operator, inputs.split(), [output], **(more[0] if more else {}))
        for operator, inputs, output, *more in nodes
    ]
    shape = ["batch", *(columns if isinstance(columns, tuple) else (columns,))]
    ends = [
        onnx.helper.make_tensor_value_info("x", FLOAT, shape),
        onnx.helper.make_tensor_value_info("y", FLOAT, ["batch", outputs] if outputs else ["batch"]),
    ]
    values = [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in (constants or {}).items()]
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(made, "g", ends[:1], ends[1:], values),
        opset_imports=[onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=8,
    )
    data: bytes = proto.SerializeToString()
    return data


W, B = weight(4, 3), weight(3)
DENSE = [("Gemm", "x w b", "z")]
WEIGHTS = {"w": W, "b": B}


def verdict(folder: Path, data: bytes) -> str:
    """Return what is said of a file that may be broken; empty when it can be run."""
    try:
        imported(folder, data)
    except (FileFormatError, InvalidInputError) as error:
        return str(error)
    return ""


def imported(folder: Path, data: bytes, **options: Any) -> Imported:
    path = folder / "net.onnx"
    path.write_bytes(data)
    return import_onnx(path, **options)


def agree(folder: Path, data: bytes, x: NDArray[np.float32] | None = None, **options: Any) -> Imported:
    """Import a file, and compare with ONNX Runtime; also after it has been written and read as a model file."""
    found = imported(folder, data, **options)
    path = folder / "model.safetensors"
    path.write_bytes(to_bytes(found.metadata, found.tensors))
    model = Model(read_model(path))
    if x is None:
        x = np.random.default_rng(1).standard_normal((33, model.columns)).astype(np.float32)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    rows = x.reshape(len(x), *found.metadata.input_shape)
    promised = session.run([found.output], {session.get_inputs()[0].name: rows})[0]
    if isinstance(promised, list):  # of a ZipMap: a dict a row
        promised = np.array([list(row.values()) for row in promised])
        assert (
            tuple(session.run([found.output], {session.get_inputs()[0].name: rows})[0][0])
            == found.metadata.labels
        )
    y = model.predict(x)
    promised = promised.reshape(len(x), -1)
    if promised.shape[1] == 2 and y.shape[1] == 1:
        y = np.hstack([1 - y, y])
    np.testing.assert_allclose(y, promised, rtol=1e-5, atol=1e-5)
    return found


def kinds(found: Imported) -> list[str]:
    return [layer.activation for layer in found.metadata.layers]


# ---- PyTorch, scikit-learn, ourselves -------------------------------------------------------------------


GOLDEN = Path(__file__).parent / "golden"


TORCH = [
    "gelu", "silu", "gelu_tanh", "prelu", "elu", "leaky_relu", "selu", "softplus", "tanh", "relu", "softmax",
]  # fmt: skip


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("pytorch-*.onnx")), ids=lambda path: path.stem)
def test_pytorch_as_it_exported(tmp_path: Path, path: Path) -> None:
    found = agree(tmp_path, path.read_bytes())
    assert kinds(found) == TORCH
    assert found.metadata.input_shape == (2, 3)
    with np.load(GOLDEN / "pytorch.npz") as rows:
        y = Model(ModelFile(found.metadata, found.tensors)).predict(rows["x"].reshape(-1, 6))
        np.testing.assert_allclose(y, rows["y"], rtol=1e-5, atol=1e-5)


def test_keras_as_it_exported() -> None:
    """Against Keras alone: its GELU becomes an operator that ONNX Runtime does not have."""
    found = import_onnx(GOLDEN / "keras.onnx")
    assert found.metadata.input_shape == (2, 3)
    with np.load(GOLDEN / "keras.npz") as rows:
        y = Model(ModelFile(found.metadata, found.tensors)).predict(rows["x"].reshape(-1, 6))
        np.testing.assert_allclose(y, rows["y"], rtol=1e-5, atol=1e-5)


def pytorch() -> dict[str, Any]:
    pytest.importorskip("torch")
    return runpy.run_path(str(GOLDEN / "make_pytorch.py"))


@pytest.mark.parametrize("opset", [11, 17, 20])
def test_pytorch_by_torchscript(tmp_path: Path, opset: int) -> None:
    make = pytorch()
    net, x = make["network"]()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make["torchscript"](net, x, file, opset)
    found = agree(tmp_path, file.getvalue())
    assert kinds(found) == TORCH
    assert found.metadata.input_shape == (2, 3)
    y = Model(ModelFile(found.metadata, found.tensors)).predict(x.reshape(-1, 6).numpy())
    np.testing.assert_allclose(y, net(x).detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("beside", [False, True], ids=["one file", "weights beside it"])
def test_pytorch_by_dynamo(tmp_path: Path, beside: bool) -> None:
    make = pytorch()
    pytest.importorskip("onnxscript")
    net, x = make["network"]()
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make["dynamo"](net, x, path, beside=beside)
    assert (tmp_path / "net.onnx.data").exists() == beside
    found = import_onnx(path)
    assert kinds(found) == TORCH
    y = Model(ModelFile(found.metadata, found.tensors)).predict(x.reshape(-1, 6).numpy())
    np.testing.assert_allclose(y, net(x).detach().numpy(), rtol=1e-5, atol=1e-5)


def sklearn_file(
    estimator: Any, load: Callable[..., Any], labels: Sequence[Any] = ()
) -> tuple[bytes, Any, Any]:
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load(return_X_y=True)
    x = x.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = make_pipeline(StandardScaler(), estimator).fit(
            x, np.array(labels)[y] if len(labels) else y
        )
        data: bytes = skl2onnx.to_onnx(pipeline, x[:1]).SerializeToString()
    return data, pipeline, x


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("labels", [(), ("setosa", "versicolor", "virginica")])
def test_scikit_learn_classifier(tmp_path: Path, activation: str, labels: Sequence[str]) -> None:
    from sklearn.datasets import load_iris
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier((7, 5), activation=activation, max_iter=5, random_state=0)
    data, pipeline, x = sklearn_file(net, load_iris, labels)
    found = agree(tmp_path, data, x)
    assert found.metadata.labels == (labels or (0, 1, 2))
    assert found.left_out == ("output_label",)
    y = Model(ModelFile(found.metadata, found.tensors)).predict(x)
    np.testing.assert_allclose(y, pipeline.predict_proba(x), atol=1e-5)
    scaler = pipeline[0]
    np.testing.assert_allclose([f.shift for f in found.metadata.features], scaler.mean_, rtol=1e-6)
    np.testing.assert_allclose([f.scale for f in found.metadata.features], 1 / scaler.scale_, rtol=1e-6)


def test_scikit_learn_of_two_classes(tmp_path: Path) -> None:
    from sklearn.datasets import load_breast_cancer
    from sklearn.neural_network import MLPClassifier

    data, _, x = sklearn_file(
        MLPClassifier((8,), max_iter=5, random_state=0), load_breast_cancer, ("no", "yes")
    )
    found = agree(tmp_path, data, x)
    assert (found.metadata.labels, found.metadata.outputs) == (("no", "yes"), 1)


def test_scikit_learn_regressor(tmp_path: Path) -> None:
    from sklearn.datasets import load_diabetes
    from sklearn.neural_network import MLPRegressor

    net = MLPRegressor(hidden_layer_sizes=(8,), max_iter=5, random_state=0)
    data, _, x = sklearn_file(net, load_diabetes)
    found = agree(tmp_path, data, x)
    assert (found.metadata.task, found.metadata.labels) == ("regression", ())


def test_scikit_learn_with_named_columns(tmp_path: Path) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(RANDOM.standard_normal((40, 3)).astype(np.float32), columns=["a", "b", "c"])
    columns = ColumnTransformer([("scaled", StandardScaler(), ["a", "b", "c"])])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = make_pipeline(columns, MLPRegressor(hidden_layer_sizes=(4,), max_iter=3)).fit(
            frame, frame["a"]
        )
        types = [(name, FloatTensorType([None, 1])) for name in frame]
        proto = skl2onnx.to_onnx(pipeline, initial_types=types)
    found = imported(tmp_path, proto.SerializeToString())
    assert [feature.name for feature in found.metadata.features] == ["a", "b", "c"]
    y = Model(ModelFile(found.metadata, found.tensors)).predict(frame.to_numpy())
    np.testing.assert_allclose(y[:, 0], pipeline.predict(frame), rtol=1e-4, atol=1e-4)


def test_our_own_export_comes_back(tmp_path: Path) -> None:
    features = tuple(NumericFeature(name=f"f{i}", shift=i + 0.5, scale=1 / (i + 1)) for i in range(4))
    layers = (
        DenseLayer(name="a", inputs=4, units=5, activation="gelu"),
        DenseLayer(name="b", inputs=5, units=3, activation="softmax"),
    )
    metadata = ModelMetadata(
        task="classification", features=features, input_shape=(4,), layers=layers, labels=("x", "y", "z")
    )
    tensors = {name: weight(*shape) for name, shape in metadata.tensor_shapes().items()}
    found = agree(tmp_path, to_onnx(ModelFile(metadata, tensors)))
    assert found.metadata.labels == metadata.labels
    assert [f.name for f in found.metadata.features] == [f.name for f in features]
    np.testing.assert_allclose([f.shift for f in found.metadata.features], [f.shift for f in features])
    for ours, theirs in zip(found.metadata.layers, layers, strict=True):
        assert ours.activation == theirs.activation
        np.testing.assert_array_equal(found.tensors[f"{ours.name}.weight"], tensors[f"{theirs.name}.weight"])


# ---- How exporters write things -------------------------------------------------------------------------

SPELLINGS: dict[str, tuple[str, list[tuple[Any, ...]], dict[str, Any]]] = {
    "Gelu by Erf, PyTorch": (
        "gelu",
        [
            ("Div", "z root2", "a"), ("Erf", "a", "e"), ("Add", "e one", "s"), ("Mul", "z s", "m"),
            ("Mul", "m half", "y"),
        ],
        {},
    ),
    "Gelu by Erf, Keras": (
        "gelu",
        [
            ("Mul", "half z", "h"), ("Div", "z root2", "a"), ("Erf", "a", "e"), ("Add", "one e", "s"),
            ("Mul", "h s", "y"),
        ],
        {},
    ),
    "Gelu by tanh": (
        "gelu_tanh",
        [
            ("Pow", "z three", "c"), ("Mul", "c cubic", "k"), ("Add", "z k", "i"), ("Mul", "i root", "j"),
            ("Tanh", "j", "t"), ("Add", "t one", "s"), ("Mul", "z s", "m"), ("Mul", "m half", "y"),
        ],
        {},
    ),
    "SiLU": ("silu", [("Sigmoid", "z", "s"), ("Mul", "s z", "y")], {}),
    "sigmoid by Exp": (
        "sigmoid", [("Neg", "z", "n"), ("Exp", "n", "e"), ("Add", "e one", "d"), ("Div", "one d", "y")], {},
    ),
    "softplus by Log": ("softplus", [("Exp", "z", "e"), ("Add", "e one", "d"), ("Log", "d", "y")], {}),
    "ReLU by Max": ("relu", [("Max", "z zero", "y")], {}),
    "ReLU by Clip": ("relu", [("Clip", "z zero", "y")], {}),
    "LeakyReLU by Where": (
        "leaky_relu", [("Mul", "z half", "n"), ("Greater", "z zero", "g"), ("Where", "g z n", "y")], {},
    ),
    "ELU": ("elu", [("Elu", "z", "y", {"alpha": 0.5})], {}),
    "Celu of 1 is ELU": ("elu", [("Celu", "z", "y")], {}),
    "PReLU of one slope": ("leaky_relu", [("PRelu", "z half", "y")], {}),
    "PReLU": ("prelu", [("PRelu", "z slope", "y")], {"slope": np.array([0.1, 0.2, 0.3], np.float32)}),
    "Identity": ("linear", [("Identity", "z", "y")], {}),
    "Dropout": ("linear", [("Dropout", "z ratio", "y")], {"ratio": np.float32(0.5)}),
    "Relu twice": ("relu", [("Relu", "z", "a"), ("Relu", "a", "y")], {}),
    "Cast to and fro": ("relu", [("Cast", "z", "d", {"to": 11}), ("Relu", "d", "r"), ("Cast", "r", "y", {"to": 1})], {}),
}  # fmt: skip
SCALARS = {
    "zero": 0.0, "one": 1.0, "half": 0.5, "three": 3.0, "root2": 2**0.5, "cubic": 0.044715, "root": (2 / np.pi) ** 0.5,
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("bias", ["Gemm", "Add"])
def test_an_activation_however_it_is_written(tmp_path: Path, spelling: str, bias: str) -> None:
    name, nodes, constants = SPELLINGS[spelling]
    scalars = {key: np.float32(value) for key, value in SCALARS.items()}
    start = DENSE if bias == "Gemm" else [("MatMul", "x w", "p"), ("Add", "p b", "z")]
    found = agree(tmp_path, graph([*start, *nodes], constants=WEIGHTS | scalars | constants))
    assert kinds(found) == [name]


CHAINS: dict[str, tuple[list[tuple[Any, ...]], dict[str, Any], Any]] = {
    "alpha, beta and transB": ([("Gemm", "x wt b", "y", {"alpha": 0.5, "beta": 2.0, "transB": 1})], {"wt": W.T}, 4),
    "scaling of the input": ([("Sub", "x mean", "c"), ("Div", "c four", "s"), ("Gemm", "s w b", "y")], {}, 4),
    "scaling of the input by a scalar": ([("Mul", "x half", "c"), ("Sub", "c half", "s"), ("Gemm", "s w b", "y")], {}, 4),
    "a column that is switched off": ([("Mul", "x switch", "c"), ("Add", "c mean", "s"), ("Gemm", "s w b", "y")], {}, 4),
    "scaling of the output": ([*DENSE, ("Tanh", "z", "t"), ("Mul", "t b", "m"), ("Add", "m b", "y")], {}, 4),
    "scaling between layers": ([*DENSE, ("Relu", "z", "r"), ("Mul", "r b", "s"), ("Add", "s half", "t"), ("MatMul", "t v", "y")], {}, 4),
    "1 - y": ([*DENSE, ("Sigmoid", "z", "s"), ("Sub", "one s", "y")], {}, 4),
    "BatchNormalization first": ([("BatchNormalization", "x mean four mean four", "n"), ("Gemm", "n w b", "y")], {}, 4),
    "BatchNormalization behind a ReLU": ([*DENSE, ("Relu", "z", "r"), ("BatchNormalization", "r b b b bb", "n"), ("MatMul", "n v", "y")], {}, 4),
    "two activations": ([*DENSE, ("Tanh", "z", "t"), ("Sigmoid", "t", "s"), ("MatMul", "s v", "y")], {}, 4),
    "no layer at all": ([("Tanh", "x", "t"), ("MatMul", "t w", "y")], {}, 4),
    "Flatten": ([("Flatten", "x", "f"), ("Gemm", "f w b", "y")], {}, (2, 2)),
    "Reshape": ([("Reshape", "x rows", "f"), ("Gemm", "f w b", "y")], {"rows": np.array([-1, 4])}, (2, 2)),
    "Reshape that keeps the batch": ([("Reshape", "x rows", "f"), ("Gemm", "f w b", "y")], {"rows": np.array([0, -1])}, (2, 2)),
    "Reshape by Shape": (
        [("Shape", "x", "s"), ("Gather", "s first", "n"), ("Unsqueeze", "n axis", "u"), ("Concat", "u rest", "t", {"axis": 0}), ("Reshape", "x t", "f"), ("Gemm", "f w b", "y")],
        {"first": np.array(0), "axis": np.array([0]), "rest": np.array([-1])}, (2, 2),
    ),
    "Squeeze": ([("Squeeze", "x axis", "s"), ("Gemm", "s w b", "y")], {"axis": np.array([1])}, (1, 4)),
    "weights turned by a node": ([("Transpose", "wt", "w2", {"perm": [1, 0]}), ("MatMul", "x w2", "y")], {"wt": W.T}, 4),
    "weights in float16": ([("Cast", "w16", "w2", {"to": 1}), ("MatMul", "x w2", "y")], {"w16": W.astype(np.float16)}, 4),
}  # fmt: skip


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_however_it_is_written(tmp_path: Path, chain: str) -> None:
    nodes, constants, columns = CHAINS[chain]
    extra = {
        "mean": np.array([1, -2, 3, 0.5], np.float32),
        "four": np.array([4, 2, 1, 3], np.float32),
        "switch": np.array([1, 0, 2, 1], np.float32),
        "v": weight(3, 3),
        "bb": np.abs(B),
        **{key: np.float32(value) for key, value in SCALARS.items()},
    }
    agree(tmp_path, graph(nodes, columns=columns, constants=WEIGHTS | extra | constants))


def test_a_network_of_scores_becomes_a_classifier(tmp_path: Path) -> None:
    data = graph([("Gemm", "x w b", "y")], constants=WEIGHTS)
    assert imported(tmp_path, data).metadata.task == "regression"
    for options in ({"task": "classification"}, {"labels": ("a", "b", "c")}):
        found = imported(tmp_path, data, **options)
        assert (found.metadata.task, kinds(found)) == ("classification", ["softmax"])
    x = RANDOM.standard_normal((9, 4)).astype(np.float32)
    e = np.exp(x @ W + B)
    y = Model(ModelFile(found.metadata, found.tensors)).predict(x)
    np.testing.assert_allclose(y, e / e.sum(axis=1, keepdims=True), atol=1e-6)


def test_one_sigmoid_is_a_classifier_of_two(tmp_path: Path) -> None:
    nodes = [("Gemm", "x w b", "z"), ("Sigmoid", "z", "p"), ("Squeeze", "p axis", "y")]
    constants = {"w": weight(4, 1), "b": weight(1), "axis": np.array([1])}
    found = agree(tmp_path, graph(nodes, outputs=None, constants=constants))
    assert found.metadata.labels == (0, 1)


# ---- What is refused, and how ---------------------------------------------------------------------------

REFUSED: dict[str, tuple[list[tuple[Any, ...]], str]] = {
    "HardSigmoid": ([*DENSE, ("HardSigmoid", "z", "y")], "HardSigmoid.*Mariana has no such operator"),
    "Conv": ([("Conv", "x w", "y")], "Conv.*no such operator"),
    "ReLU6": ([*DENSE, ("Clip", "z zero six", "y")], "Clip.*no activation that Mariana runs"),
    "Mish": ([*DENSE, ("Softplus", "z", "s"), ("Tanh", "s", "t"), ("Mul", "z t", "y")], "Mul.*no activation known"),
    "a connection past a layer": ([*DENSE, ("Relu", "z", "r"), ("MatMul", "r v", "q"), ("Add", "r q", "y")], "Add.*joins two parts"),
    "softmax inside": ([*DENSE, ("Softmax", "z", "s"), ("MatMul", "s v", "y")], "softmax is run in the last layer only"),
    "softmax over the rows": ([*DENSE, ("Softmax", "z", "y", {"axis": 0})], "does not run over the numbers of a row"),
    "LogSoftmax": ([*DENSE, ("LogSoftmax", "z", "y")], "LogSoftmax.*--task classification"),
    "rows turned": ([("Gemm", "x w b", "y", {"transA": 1})], "transA"),
    "rows mixed": ([("Reshape", "x mix", "m"), ("MatMul", "m w", "y")], "does not keep the rows apart"),
    "a sum over rows": ([*DENSE, ("ReduceMean", "z", "y")], "ReduceMean"),
    "a product of two layers": ([("MatMul", "x w", "a"), ("MatMul", "x u", "c"), ("Mul", "a c", "y")], "joins two parts"),
    "another library's operator": ([("FusedGemm", "x w b", "y", {"domain": "com.microsoft"})], "com.microsoft.FusedGemm"),
    "weights that do not fit": ([("MatMul", "x v", "y")], "do not fit rows of shape"),
    "a bias that does not fit": ([("Gemm", "x w five", "y")], "does not fit 3 units"),
    "a class only": ([*DENSE, ("ArgMax", "z", "y", {"axis": 1})], "ArgMax"),
    "what is not finite": ([*DENSE, ("Div", "z zero", "y")], "not finite"),
    "a bias for each row": ([("Gemm", "x w column", "y")], "does not fit 3 units"),
    "an activation of three": ([*DENSE, ("Sqrt", "z b b", "y")], "Sqrt.*it has 3 inputs"),
    "a ReLU of two": ([*DENSE, ("Relu", "z b", "y")], "Relu.*does not fit its inputs"),
    "a sum that fits no row": ([*DENSE, ("Add", "z b b", "y")], "Add.*it has 3 inputs"),
    "an attribute that is no number": ([*DENSE, ("Swish", "z", "y", {"alpha": "x"})], "Swish.*does not fit its inputs"),
    "constants that double": ([("Concat", "b b", "c0", {"axis": 0}), *(("Concat", f"c{i} c{i}", f"c{i + 1}", {"axis": 0}) for i in range(60)), ("Mul", "x c60", "y")], "Concat.*too large an array"),
    "a constant taken again and again": ([("Gather", "many many", "c", {"axis": 1}), ("Mul", "x c", "y")], "Gather.*too large an array"),
    "nothing of the input": ([("Identity", "w", "y")], "no output depends on the input"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_run_is_named(tmp_path: Path, what: str) -> None:
    nodes, message = REFUSED[what]
    constants = WEIGHTS | {
        "v": weight(3, 3), "u": weight(4, 3), "six": np.float32(6), "zero": np.float32(0),
        "five": np.ones(5, np.float32), "mix": np.array([2, -1]),
        "column": np.ones((3, 1), np.float32), "many": np.zeros((1 << 14, 1), np.int64),
    }  # fmt: skip
    with pytest.raises(InvalidInputError, match=message) as info:
        imported(tmp_path, graph(nodes, constants=constants))
    assert "\n" not in str(info.value)
    assert str(info.value).startswith(str(tmp_path / "net.onnx"))


def test_several_outputs_need_a_choice(tmp_path: Path) -> None:
    proto = onnx.load_from_string(graph([("Gemm", "x w b", "y"), ("Tanh", "y", "t")], constants=WEIGHTS))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("t", FLOAT, ["batch", 3]))
    data = proto.SerializeToString()
    with pytest.raises(InvalidInputError, match="--output: y, t"):
        imported(tmp_path, data)
    assert kinds(imported(tmp_path, data, output="t")) == ["tanh"]
    with pytest.raises(InvalidInputError, match="no output 'z'"):
        imported(tmp_path, data, output="z")


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    data = graph([*DENSE, ("Softmax", "z", "y")], constants=WEIGHTS)
    with pytest.raises(InvalidInputError, match="2 labels, but 3 classes"):
        imported(tmp_path, data, labels=("a", "b"))
    tanh = graph([*DENSE, ("Tanh", "z", "y")], constants=WEIGHTS)
    with pytest.raises(InvalidInputError, match="ends in softmax, not in tanh"):
        imported(tmp_path, tanh, task="classification")


# ---- Hostile files --------------------------------------------------------------------------------------


def change(edit: Callable[[Any], object]) -> bytes:
    proto = onnx.load_from_string(graph([("Gemm", "x w b", "y")], constants=WEIGHTS))
    edit(proto)
    data: bytes = proto.SerializeToString()
    return data


def external(location: str, **more: str) -> Callable[[Any], object]:
    def edit(proto: Any) -> None:
        tensor = proto.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": location, **more}.items():
            tensor.external_data.add(key=key, value=value)

    return edit


HOSTILE: dict[str, Callable[[Any], object]] = {
    "huge dims": lambda p: p.graph.initializer[0].dims.__setitem__(0, 1 << 60),
    "negative dims": lambda p: p.graph.initializer[0].dims.__setitem__(0, -4),
    "dims that overflow": lambda p: p.graph.initializer[0].dims.extend([1 << 62] * 6),
    "too little data": lambda p: setattr(p.graph.initializer[0], "raw_data", b"1234"),
    "an unknown type": lambda p: setattr(p.graph.initializer[0], "data_type", 999),
    "complex numbers": lambda p: setattr(p.graph.initializer[0], "data_type", onnx.TensorProto.COMPLEX64),
    "a missing constant": lambda p: p.graph.initializer.pop(0),
    "a cycle": lambda p: p.graph.node[0].input.__setitem__(0, "y"),
    "two things of one name": lambda p: p.graph.node.append(p.graph.node[0]),
    "no node": lambda p: p.graph.ClearField("node"),
    "no input": lambda p: p.graph.ClearField("input"),
    "no output": lambda p: p.graph.ClearField("output"),
    "an output of nothing": lambda p: setattr(p.graph.output[0], "name", "lost"),
    "no opset": lambda p: p.ClearField("opset_import"),
    "an old opset": lambda p: setattr(p.opset_import[0], "version", 3),
    "an input of any width": lambda p: p.graph.input[0].type.tensor_type.shape.dim[1].ClearField("dim_value"),
    "a huge input": lambda p: setattr(p.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 1 << 40),
    "an input that is no tensor": lambda p: p.graph.input[0].type.ClearField("tensor_type"),
    "weights elsewhere": external("../secret"),
    "weights anywhere": external("/etc/passwd"),
    "weights in a lost file": external("lost.bin"),
    "weights in a device": external(".", offset="0"),
    "weights beyond the end": external("short.bin", offset="999999999999"),
    "weights by a link": external("link.bin"),
    "a broken offset": external("short.bin", offset="many"),
    "infinite weights": lambda p: setattr(p.graph.initializer[0], "raw_data", np.full(12, np.inf, np.float32).tobytes()),
    "an attribute of another type": lambda p: p.graph.node[0].attribute.add(name="alpha", type=4, s=b"x"),
    "a subgraph that nothing needs": lambda p: p.graph.node.insert(0, onnx.helper.make_node("If", ["x"], ["q"], then_branch=p.graph)),
    "a thousand operators": lambda p: [
        p.graph.node.extend(onnx.helper.make_node("Abs", [f"y{i}" if i else "y"], [f"y{i + 1}"]) for i in range(5000)),
        setattr(p.graph.output[0], "name", "y5000"),
    ],
    "a thousand layers": lambda p: [
        p.graph.initializer.append(onnx.numpy_helper.from_array(weight(3, 3), "v")),
        p.graph.node.extend(onnx.helper.make_node("MatMul", [f"y{i}" if i else "y", "v"], [f"y{i + 1}"]) for i in range(500)),
        setattr(p.graph.output[0], "name", "y500"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_gives_one_line(tmp_path: Path, what: str) -> None:
    (tmp_path / "short.bin").write_bytes(b"1234")
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    data = change(HOSTILE[what])
    said = verdict(tmp_path, data)
    assert said or what in {"an attribute of another type", "a subgraph that nothing needs"}
    assert "\n" not in said
    assert len(said) < 400 + len(str(tmp_path))


def test_every_cut_of_a_file(tmp_path: Path) -> None:
    data = graph([*DENSE, ("Softmax", "z", "y")], constants=WEIGHTS)
    said = [verdict(tmp_path, data[:end]) for end in range(len(data))]
    assert not any("\n" in text for text in said)
    assert said.count("") < len(data) / 10, "protobuf has no end: few cuts fall between its parts"


def test_flipped_bytes(tmp_path: Path) -> None:
    data = graph(
        [*DENSE, ("Relu", "z", "r"), ("MatMul", "r v", "q"), ("Softmax", "q", "y")],
        constants=WEIGHTS | {"v": weight(3, 3)},
    )
    random = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(data)
        for at in random.integers(0, len(data), 3):
            broken[at] = random.integers(0, 256)
        assert "\n" not in verdict(tmp_path, bytes(broken))


def test_weights_in_a_second_file(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"pad!" + W.tobytes())
    data = change(external("weights.bin", offset="4", length=str(W.nbytes)))
    np.testing.assert_array_equal(imported(tmp_path, data).tensors["dense_0.weight"], W)


def test_names_in_the_file(tmp_path: Path) -> None:
    def name(proto: Any) -> None:
        onnx.helper.set_model_props(proto, {"features": json.dumps(list("abcd")), "labels": "[broken"})

    found = imported(tmp_path, change(name))
    assert [feature.name for feature in found.metadata.features] == list("abcd")
