"""train, predict, evaluate and demo at the command line."""

import gzip
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sklearn import metrics as judge
from threadpoolctl import threadpool_info

from mariana.cli import cli
from mariana.datasets import BUNDLED, load_digits
from mariana.errors import FileFormatError, InvalidInputError, MarianaError, NotFoundError
from mariana.format import read_model
from mariana.model_card import CARD_FILE
from mariana.store import locked
from mariana.tables import read_csv, read_table, table_of
from mariana.trainer import checkpoints
from mariana.trainer.data import stratified_split
from mariana.trainer.preprocessing import infer_features, infer_target
from mariana.trainer.scores import classification_scores, regression_scores
from mariana.trainer.threads import blas_threads, use_threads


def run(*arguments: object, text: str | bytes | None = None) -> Result:
    result = CliRunner().invoke(cli, [str(a) for a in arguments], input=text, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store")
    run("train", "iris", "--target", "species", "--layers", "64,32", "--store", path)
    return path


def test_train_says_what_it_did_and_what_comes_next(tmp_path: Path) -> None:
    out = run("train", "iris", "--target", "species", "--store", tmp_path, "--epochs", 5).stdout
    for part in ("150 rows, 4 features", "3 classes", "total:", "epoch 5/5", "accuracy", "test"):
        assert part in out
    assert f"published iris version 1: {tmp_path}/models/iris/1/model.safetensors" in out
    assert "mariana serve" in out
    body = json.loads(out.split("-d '")[1].split("'")[0])
    assert set(body["instances"][0]) == {"sepal_length", "sepal_width", "petal_length", "petal_width"}


def test_train_as_json_is_honest_about_its_splits(tmp_path: Path) -> None:
    done = run(
        "train",
        "iris",
        "--target",
        "species",
        "--store",
        tmp_path,
        "--json",
        "--layers",
        "64,32",
        "--name",
        "flowers",
    )
    document = json.loads(done.stdout)
    assert document["rows"] == {"train": 120, "validation": 15, "test": 15}
    assert document["metrics"]["test"]["accuracy"] > 0.85
    info = read_model(document["path"]).metadata
    assert info.training.metrics == document["metrics"]
    assert (info.training.seed, info.training.rows, info.training.data) == (0, 120, "iris")
    assert info.targets == ("species",)
    assert len(info.golden.inputs) == 8


def test_same_seed_same_file(tmp_path: Path) -> None:
    paths = [
        json.loads(
            run(
                "train",
                "iris",
                "--target",
                "species",
                "--layers",
                32,
                "--store",
                tmp_path,
                "--json",
                "--seed",
                s,
            ).stdout
        )["path"]
        for s in (3, 3, 4)
    ]
    contents = [Path(path).read_bytes() for path in paths]
    assert contents[0] == contents[1] != contents[2]


def test_names_from_a_file_do_not_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('"a\x1b[31m\nb",y\n1,2.5\n2,3.5\n3,4.5\n', encoding="utf-8")
    out = run("train", tmp_path / "t.csv", "--target", "y", "--epochs", 1, "--store", tmp_path).stdout
    out += run("inspect", "t", "--store", tmp_path).stdout
    assert r"a\x1b[31m\nb: numeric" in out
    assert "\x1b" not in out


def test_options_reach_the_network(tmp_path: Path) -> None:
    options = ["--layers", "7,5", "--activation", "tanh", "--optimizer", "sgd", "--learning-rate", "0.05"]
    rest = [
        "--members",
        1,
        "--batch-size",
        16,
        "--epochs",
        3,
        "--validation",
        0,
        "--test",
        0,
        "--early-stopping",
        0,
    ]
    path = json.loads(
        run("train", "iris", "--target", "species", "--store", tmp_path, "--json", *options, *rest).stdout
    )["path"]
    info = read_model(path).metadata
    assert [(la.units, la.activation) for la in info.layers] == [(7, "tanh"), (5, "tanh"), (3, "softmax")]
    assert info.training.members == 1
    assert info.training.optimizer["name"] == "sgd"
    assert info.training.optimizer["learning_rate"]["initial_learning_rate"] == 0.05
    assert (info.training.rows, info.training.epochs, info.training.batch_size) == (150, 3, 16)


def test_the_size_of_what_is_served_is_said_before(tmp_path: Path) -> None:
    options = ["--layers", "8,8", "--epochs", 1, "--store", tmp_path]
    out = run("train", "iris", "--target", "species", *options).stdout
    tensors = read_model(tmp_path / "models" / "iris" / "1" / "model.safetensors").tensors
    assert f"one network of {sum(t.size for t in tensors.values()):,} parameters" in out
    assert "merged" not in run("train", "iris", "--target", "species", *options, "--members", 1).stdout


def test_dropout_and_batch_normalisation(tmp_path: Path) -> None:
    options = ["--layers", "16,8", "--batch-norm", "--dropout", 0.1, "--epochs", 150, "--store", tmp_path]
    options += ["--members", 1]
    out = run("train", "iris", "--target", "species", *options, "--name", "lines").stdout
    for part in ("batch_normalization_1 (BatchNormalization)", "dropout (Dropout)", "48 of them not learned"):
        assert part in out
    document = json.loads(run("train", "iris", "--target", "species", *options, "--json").stdout)
    assert document["metrics"]["test"]["accuracy"] > 0.85
    info = read_model(document["path"]).metadata
    assert [(la.name, la.units, la.activation) for la in info.layers] == [
        ("dense", 16, "tanh"),
        ("dense_1", 8, "tanh"),
        ("dense_2", 3, "softmax"),
    ]
    run("predict", "iris", "iris", "--store", tmp_path)
    bad = CliRunner().invoke(cli, ["train", "iris", "--target", "species", "--dropout", "1"])
    assert bad.exit_code == 2


def test_images_keep_their_shape(tmp_path: Path) -> None:
    path = json.loads(
        run("train", "digits", "--target", "y", "--store", tmp_path, "--json", "--epochs", 2).stdout
    )["path"]
    info = read_model(path).metadata
    assert (info.input_shape, info.labels) == ((8, 8), tuple(range(10)))


def test_two_classes_and_regression(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    rows = [
        f"{a:.4f},{b:.4f},{'yes' if a > b else 'no'},{1000 + 200 * a - 100 * b:.3f}" for a, b in x.tolist()
    ]
    (tmp_path / "My Data.csv").write_text("a,b,c,d\n" + "\n".join(rows) + "\n", encoding="utf-8")
    for target, task, least in (
        ("c", "classification", {"accuracy": 0.95}),
        ("d", "regression", {"r2": 0.95}),
    ):
        done = run(
            "train",
            tmp_path / "My Data.csv",
            "--target",
            target,
            "--layers",
            "64,32",
            "--store",
            tmp_path,
            "--json",
        )
        document = json.loads(done.stdout)
        assert (document["model"], document["task"]) == ("my-data", task)
        for name, value in least.items():
            assert document["metrics"]["test"][name] > value
        found = run("evaluate", "my-data", tmp_path / "My Data.csv", "--store", tmp_path, "--json").stdout
        assert next(iter(json.loads(found)["metrics"].values())) > 0.9
    answer = run("predict", "my-data", tmp_path / "My Data.csv", "--store", tmp_path).stdout.splitlines()
    assert answer[0] == "d"
    assert len(answer) == 301


def test_predict_csv_and_json(store: Path) -> None:
    lines = run("predict", "iris", "iris", "--store", store).stdout.splitlines()
    assert lines[0] == "label,probability"
    assert len(lines) == 151
    header = "petal_width,sepal_length,sepal_width,petal_length,note\n"
    from_csv = run("predict", "iris", "-", "--store", store, "--json", text=header + "0.2,5.1,3.5,1.4,x\n")
    record = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
    for text in (json.dumps(record), "\ufeff" + json.dumps(record), "\n[5.1, 3.5, 1.4, 0.2]\n"):
        assert run("predict", "iris", "-", "--store", store, "--json", text=text).stdout == from_csv.stdout
    answer = json.loads(from_csv.stdout)
    assert answer["label"] == "setosa"
    assert answer["probabilities"][0] == answer["probability"] > 0.9
    explained = run("predict", "iris", "iris", "--store", store, "--explain").stdout.splitlines()
    assert explained[0] == "label,probability," + ",".join(f"share of {name}" for name in record)
    assert [line.rsplit(",", 4)[0] for line in explained[1:]] == lines[1:]
    answer = run(
        "predict", "iris", "-", "--store", store, "--json", "--explain", text=json.dumps(record)
    ).stdout
    assert list(json.loads(answer)["shares"]) == list(record)
    path = store / "models/iris"
    assert run("predict", path, "-", "--json", text=json.dumps(record)).stdout == from_csv.stdout
    file = store / "rows.jsonl"
    file.write_text(json.dumps(record), encoding="utf-8")
    assert run("predict", "iris", file, "--store", store, "--json").stdout == from_csv.stdout


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty"),
        ("sepal_length\n1\n", "no column 'sepal_width'"),
        ("sepal_length,sepal_width,petal_length,petal_width\n1,2,3,\n", "line 2: 'petal_width' is missing"),
        (
            "sepal_length,sepal_width,petal_length,petal_width\n1,2,3,4\n1,2,big,4\n",
            "line 3: 'petal_length' is 'big'",
        ),
        ("sepal_length,sepal_width,petal_length,petal_width\n1,2,3,1e39\n", "line 2.*float32"),
        ('{"sepal_length": 1}', "line 1: 'sepal_width' is missing"),
        ("[1,2,3,4]\n[1,2,3]", "line 2: expected an object.*4 values"),
        ("[1,2,3,4]\n[1,2,3,true]", "line 2: 'petal_width' must be a number"),
        ("[1,2,3,NaN]", "line 1 is not JSON: NaN"),
        ("[1,2,3", "line 1 is not JSON"),
        ("[" * 100_000, "line 1 is not JSON"),
    ],
)
def test_bad_rows_are_told_with_their_line(store: Path, text: str, complaint: str) -> None:
    with pytest.raises(MarianaError, match=complaint) as caught:
        run("predict", "iris", "-", "--store", store, text=text)
    assert "\n" not in str(caught.value)


def test_evaluate(store: Path, tmp_path: Path) -> None:
    document = json.loads(run("evaluate", "iris", "iris", "--store", store, "--json").stdout)
    assert document["rows"] == 150
    assert document["metrics"]["accuracy"] > 0.93
    assert "accuracy" in run("evaluate", "iris", "iris", "--store", store).stdout
    data = BUNDLED["iris.csv"].read_text(encoding="utf-8")
    (tmp_path / "other.csv").write_text(data.replace("virginica", "rose"), encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"line \d+: 'species' is 'rose', which is no label"):
        run("evaluate", "iris", tmp_path / "other.csv", "--store", store)
    (tmp_path / "holes.csv").write_text(data.replace("virginica", "NA"), encoding="utf-8")
    assert (
        "100 rows; left out: 50 without species"
        in run("evaluate", "iris", tmp_path / "holes.csv", "--store", store).stdout
    )
    with pytest.raises(InvalidInputError, match="no column 'nothing'"):
        run("evaluate", "iris", "iris", "--store", store, "--target", "nothing")
    with pytest.raises(NotFoundError, match="there are: iris"):
        run("evaluate", "roses", "iris", "--store", store)


def test_scores_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet(np.ones(4), 200), rng.integers(0, 4, 200)
    found = classification_scores(p, y)
    assert found["accuracy"] == judge.accuracy_score(y, p.argmax(axis=1))
    assert found["log_loss"] == pytest.approx(judge.log_loss(y, p))
    found = classification_scores(p[:, :1], y % 2)
    assert found["log_loss"] == pytest.approx(judge.log_loss(y % 2, p[:, 0]))
    values, truth = rng.normal(size=200), rng.normal(size=200)
    found = regression_scores(values, truth)
    assert found["mae"] == pytest.approx(judge.mean_absolute_error(truth, values))
    assert found["rmse"] == pytest.approx(judge.root_mean_squared_error(truth, values))
    assert found["r2"] == pytest.approx(judge.r2_score(truth, values))


def test_stratified_split_shares_each_class() -> None:
    y = np.repeat([0, 1, 2, 3], [100, 50, 10, 1])
    first, second = stratified_split(y, len(y), 0.2, np.random.default_rng(0))
    assert sorted([*first, *second]) == list(range(161))
    np.testing.assert_allclose(np.bincount(y[second], minlength=4), [20, 10, 2, 0], atol=1)
    first, second = stratified_split(None, 10, 0.0, np.random.default_rng(0))
    assert (len(first), len(second)) == (10, 0)


def _target(*cells: str, task: str = "auto"):
    return infer_target(read_csv("t.csv", ("y\n" + "\n".join(cells) + "\n").encode()).column("y"), task)


def test_targets_of_every_kind() -> None:
    assert _target("b", "a", "b").labels == ("a", "b")
    assert _target("b", "a", "b").y.tolist() == [1, 0, 1]
    assert _target("10", "9", "10").labels == (9, 10)
    assert _target("-1", "1").labels == (-1, 1)
    assert _target("07", "7").labels == ("07", "7")
    assert _target("1.5", "2.5").task == "regression"
    assert _target("1.5", "2.5", task="classification").labels == ("1.5", "2.5")
    assert _target("True", "False").labels == ("False", "True")
    assert _target(*map(str, range(21))).task == "regression"
    for cells, task in ((["a", "a"], "auto"), (["a", "b"], "regression"), (["1", "1"], "regression")):
        with pytest.raises(InvalidInputError):
            _target(*cells, task=task)


def test_columns_of_every_kind() -> None:
    table = read_csv(
        "t.csv",
        b"\xef\xbb\xbfn;constant;b;c;name;void\n1;5;true;x;anna;\n;5;;x;bert;\n3;5;false;;carl;\n8;5;true;y;dora;\n",
    )
    features, left_out = infer_features(table.columns.values(), np.array([0, 1, 2]))
    by_name = {f.name: f for f in features}
    assert (by_name["n"].fill, by_name["n"].soft) == (1.0, False)  # few rows: standardised
    assert by_name["n"].shift == pytest.approx(5 / 3)
    assert (by_name["n"].indicator, by_name["constant"].indicator) == (True, False)
    assert (by_name["constant"].shift, by_name["constant"].scale) == (5, 0)
    assert by_name["b"].kind == "boolean"
    assert by_name["b"].fill is False
    assert (by_name["c"].categories, by_name["c"].fill) == (("", "x", "y"), "")
    standard, _ = infer_features(table.columns.values(), np.array([0, 2]), "standard")
    assert (standard[0].shift, standard[0].scale, standard[0].soft) == (2, 1, False)
    many = table_of(np.arange(400.0).reshape(-1, 1))
    (robust,), _ = infer_features(many.columns.values(), np.arange(400))
    assert (robust.shift, robust.soft, len(robust.knots)) == (199, True, 11)
    assert robust.scale == pytest.approx(1 / (299 - 99) / 3)  # interquartile range, and the soft limit of 3
    assert by_name["name"].fill is None
    assert left_out == [("void", "no value in the rows to learn from")]
    numbers = "n\n" + "\n".join(f"{i}.5" for i in range(50)) + "\n1.2.3\n"
    assert infer_features(read_csv("t.csv", numbers.encode()).columns.values(), np.arange(50))[1] == [
        ("n", "51 different texts are no categories; line 52 holds '1.2.3', which is no number")
    ]
    many = read_csv("t.csv", ("t\n" + "\n".join(f"text {i}" for i in range(50)) + "\n").encode())
    assert infer_features(many.columns.values(), np.arange(50))[1] == [
        ("t", "50 different texts are no categories; line 2 holds 'text 0', which is no number")
    ]


def test_knots_follow_the_data() -> None:
    rng = np.random.default_rng(0)
    gain = np.where(rng.random(4000) < 0.95, 0.0, rng.exponential(1000, 4000).round())
    table = table_of(np.column_stack([rng.normal(size=4000), gain, rng.integers(0, 5, 4000)]))
    normal, rare, few = infer_features(table.columns.values(), np.arange(4000))[0]
    assert (len(normal.knots), few.knots) == (49, (0, 1, 2, 3, 4))
    assert len(rare.knots) > 30  # plain quantiles would spend all but a few on the frequent 0
    share = np.histogram(table.columns["x0"].cells, normal.knots)[0] / 4000
    assert (np.abs(share - 1 / 48) < 0.01).all()  # of different values they are the quantiles
    weights = rng.integers(0, 3, 4000).astype(float)
    repeated = table.take(np.repeat(np.arange(4000), weights.astype(int)))
    once = infer_features(table.columns.values(), np.arange(4000), weights=weights)
    again = infer_features(repeated.columns.values(), np.arange(repeated.rows))
    assert once == again


def test_dates_become_their_parts() -> None:
    text = "when,y\n2024-02-29,1\n2023-12-31T18:30:00Z,2\n,3\n"
    table = read_csv("t.csv", text.encode())
    assert table.columns["when"].kind == "date"
    features, _ = infer_features([table.columns["when"]], np.arange(3))
    assert [f.name for f in features] == ["when.year", "when.month", "when.day", "when.weekday", "when.hour"]
    matrix = table.matrix(features)
    np.testing.assert_array_equal(matrix, [[2024, 2, 29, 3, 0], [2023, 12, 31, 6, 18.5], [np.nan] * 5])
    broken = read_csv("t.csv", b"when\n2024-02-29\nlately\n")
    with pytest.raises(InvalidInputError, match="line 3: 'when' is 'lately', expected a date"):
        broken.matrix(features)


def test_numbers_with_a_decimal_comma_are_no_classes() -> None:
    with pytest.raises(InvalidInputError, match=r"40 different values in 40 rows; line 2 holds '0,5'"):
        _target(*(f'"{i},5"' for i in range(40)))
    assert len(_target(*(f"name {i}" for i in range(40)), task="classification").labels) == 40


def test_tables_of_every_kind(tmp_path: Path) -> None:
    text = BUNDLED["iris.csv"].read_bytes()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "a.tsv").write_bytes(text.replace(b",", b"\t"))
    for name in ("a.csv.gz", "a.tsv"):
        table = read_table(tmp_path / name)
        assert (table.name, table.rows, list(table.columns)[-1]) == ("a", 150, "species")
        assert table.columns["sepal_length"].cells == read_table("iris").columns["sepal_length"].cells
    x, y = load_digits()
    np.savez(tmp_path / "d.npz", x=x.reshape(-1, 8, 8), y=y.astype(str))
    table = read_table(tmp_path / "d.npz")
    assert (table.input_shape, table.columns["y"].kind) == ((8, 8), "categorical")
    np.testing.assert_array_equal(table.columns["x3"].numbers("numeric"), x[:, 3])


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    source = pa.table({"a": [1, None, 3], "b": [True, False, None], "c": ["x", None, "y"]})
    parquet.write_table(source, tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert [c.kind for c in table.columns.values()] == ["numeric", "boolean", "categorical"]
    assert table.columns["b"].texts() == ["true", "false", None]
    np.testing.assert_array_equal(table.columns["a"].numbers("numeric"), [1, np.nan, 3])
    parquet.write_table(pa.table({"a": [[1], [2]]}), tmp_path / "l.parquet")
    with pytest.raises(FileFormatError, match="'a' is of type list"):
        read_table(tmp_path / "l.parquet")
    (tmp_path / "l.parquet").write_bytes(b"PAR1")
    with pytest.raises(FileFormatError, match="damaged"):
        read_table(tmp_path / "l.parquet")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(InvalidInputError, match="pip install"):
        read_table(tmp_path / "t.parquet")


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"a,b\n", "no row"),
        ("a.csv", b"a,,c\n1,2,3\n", "column 2 needs a name"),
        ("a.csv", b"a,a\n1,2\n", "names the column 'a' twice"),
        ("a.csv", b'a,b\n1,2\n"x\ny",2,3\n', "line 4 has 3 values, but the header names 2"),
        ("a.csv", b'a,b\n1,"2\n', "line 2"),
        ("a.csv", b'a,b\n1,"2"3\n', "line 2.*RFC 4180"),
        ("a.csv", b"a,b\n1,\xff\n", "line 2 is not UTF-8"),
        ("a.csv.gz", gzip.compress(b"a,b\n1,2\n")[:-4], "damaged gzip"),
        ("a.txt", b"a", "expected .csv"),
        ("a.npz", b"PK", "archive"),
        ("a.npz", _npz(a=np.zeros(3)), "found no x"),
        ("a.npz", _npz(x=np.zeros(3)), "x must be numbers"),
        ("a.npz", _npz(x=np.zeros((3, 2)), y=np.zeros(2)), "y must be"),
        ("a.npz", _npz(x=np.zeros((3, 2)), y=np.array([1j, 0, 0])), "y must be"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,  # archives hold the time
)
def test_bad_files_are_told(tmp_path: Path, name: str, data: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MarianaError, match=complaint) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_demo_makes_what_is_missing_and_skips_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mariana.trainer import digits

    monkeypatch.setattr(digits, "COPIES", 1)
    monkeypatch.setattr(digits, "EPOCHS", 3)
    out = run("demo", "--store", tmp_path).stdout
    assert "model digits: trained" in out
    assert "index cities: 3" in out
    again = run("demo", "--store", tmp_path).stdout.splitlines()
    assert again == [f"{name}: there already" for name in ("model digits", "model iris", "index cities")]
    info = read_model(tmp_path / "models/digits/1/model.safetensors").metadata
    assert (info.input_shape, info.labels, info.training.rows) == ((8, 8), tuple(range(10)), 1438)


def test_a_killed_training_is_resumed_and_ends_with_the_same_files(tmp_path: Path) -> None:
    arguments = [
        "train",
        "iris",
        "--target",
        "species",
        "--epochs",
        "300",
        "--dropout",
        "0.1",
        "--layers",
        "32",
    ]
    run(*arguments, "--store", tmp_path / "whole")
    arguments += ["--store", str(tmp_path / "killed"), "--resume"]
    training = tmp_path / "killed/training/iris"
    program = (
        "import sys, mariana.cli.train\n"
        "sys.modules['mariana.cli.train'].BACKUP_SECONDS = 0.0\n"
        f"mariana.cli.cli({arguments!r})\n"
    )
    for member, epoch in ((1, 2), (1, 10), (3, 5)):  # it goes on, and is killed again
        backup = training / str(member) / "training.safetensors"
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                if backup.exists() and checkpoints.load(backup)[0]["epoch"] >= epoch:
                    process.kill()
                    break
                time.sleep(0.001)
        assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/models").exists()
    for option, value, said in (
        ("--seed", 3, "seed is 0, here it is 3"),
        ("--dropout", 0.2, "dropout is 0.1, here it is 0.2"),
        ("--test", 0.2, "test is 0.1, here it is 0.2"),
        ("--threads", 2, "threads is None, here it is 2"),
    ):
        with pytest.raises(InvalidInputError, match=f"belongs to another training: its {said}"):
            run(*arguments, option, value)
    other = tmp_path / "iris.csv"
    other.write_bytes(BUNDLED["iris.csv"].read_bytes().replace(b"5.1", b"5.2", 1))
    with pytest.raises(InvalidInputError, match="belongs to another training: its data is"):
        run("train", other, *arguments[2:])
    run(*arguments)
    assert not training.exists()
    for name in ("model.safetensors", CARD_FILE):
        whole, resumed = (tmp_path / store / "models/iris/1" / name for store in ("whole", "killed"))
        assert whole.read_bytes() == resumed.read_bytes()
    assert "nothing to resume" in run(*arguments).stdout
    training.mkdir()
    (training / "left").write_bytes(b"")
    assert "is dropped" in run(*arguments[:-1]).stdout
    assert not training.exists()


def test_a_training_of_the_same_name_that_is_at_work_keeps_its_checkpoints(tmp_path: Path) -> None:
    training = tmp_path / "training/iris"
    training.mkdir(parents=True)
    (training / "1").mkdir()
    command = ("train", "iris", "--target", "species", "--epochs", 1, "--members", 1, "--store", tmp_path)
    with locked(training):
        for more in ((), ("--resume",)):
            with pytest.raises(InvalidInputError, match="name 'iris' is at work"):
                run(*command, *more)
        assert run(*command, "--name", "other").exit_code == 0
    assert list(training.iterdir()) == [training / "1"]
    assert "is dropped" in run(*command).stdout
    assert not training.exists()


def test_a_table_of_which_nothing_can_be_learned_says_why(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,y\n" + ",,x\n,,y\n" * 9)
    with pytest.raises(
        InvalidInputError, match="besides 'y': a no value in the rows to learn from; b no value"
    ):
        run("train", tmp_path / "t.csv", "--target", "y", "--store", tmp_path)


def test_the_threads_chosen_reach_blas() -> None:
    def pools() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    before = pools()
    for count in (None, 1, 2):
        with use_threads(count), blas_threads(1000):
            assert pools() == {count or 1}
    with use_threads(2), blas_threads(10**7):
        assert pools() == {2}
    with blas_threads(10**7):
        assert pools() == before
    with pytest.raises(InvalidInputError, match="threads"), use_threads(0):
        pass


@pytest.mark.parametrize("command", ["train", "tune"])
def test_an_unknown_instruction_set_ends_it_before_it_learns(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARIANA_ISA", "abacus")
    result = CliRunner().invoke(
        cli, [command, "iris", "--target", "species", "--store", str(tmp_path / "store")]
    )
    assert isinstance(result.exception, MarianaError)
    assert "abacus" in str(result.exception)
    assert not (tmp_path / "store").exists()
