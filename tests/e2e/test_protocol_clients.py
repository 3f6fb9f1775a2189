"""Clients of other people, unmodified, against `mariana serve`'s own protocol: tritonclient, KServe's, TensorFlow Serving's.

What a client needs and what it may use beside that: health, metadata, inference in JSON and in binary, compressed,
with ids and chosen outputs, by version, the repository, statistics, and errors in the shape that it reads.
"""

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.http_peers import present
from mariana.model import load_model

TOKEN = "a token for tests"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
X = np.array([[0.5, -1, 2e-3, 4], [1, 2, 3, 4]], dtype=np.float32)


@pytest.fixture(scope="module")
def url(serving, tiny_store: Path) -> Iterator[str]:
    with serving(tiny_store, admin_token=TOKEN) as url:
        yield url


@pytest.fixture(scope="module")
def expected(tiny_store: Path) -> np.ndarray:
    return load_model(tiny_store / "models/tiny").predict(X)


class TestTriton:
    @pytest.fixture
    def triton(self) -> Any:
        return pytest.importorskip(
            "tritonclient.http", reason="tritonclient is not installed: pip install tritonclient[http]"
        )

    @pytest.fixture
    def client(self, url: str, triton: Any) -> Iterator[Any]:
        client = triton.InferenceServerClient(url.removeprefix("http://"))
        yield client
        client.close()

    @staticmethod
    def input(triton: Any, x: np.ndarray = X, *, binary: bool = True, datatype: str = "FP32") -> Any:
        tensor = triton.InferInput("input", list(x.shape), datatype)
        tensor.set_data_from_numpy(x, binary_data=binary)
        return tensor

    def test_health_and_metadata(self, client: Any) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.is_model_ready("tiny", "1")
        assert not client.is_model_ready("nothing")
        assert not client.is_model_ready("tiny", "9")
        server = client.get_server_metadata()
        assert server["name"] == "mariana"
        assert {"binary_tensor_data", "model_repository", "statistics"} <= set(server["extensions"])
        for version in ("", "2"):
            metadata = client.get_model_metadata("tiny", version)
            assert metadata["versions"] == ["1", "2"]
            assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
            assert client.get_model_config("tiny", version)["name"] == "tiny"
            assert client.get_inference_statistics("tiny", version)["model_stats"]
        assert client.get_inference_statistics()["model_stats"]

    @pytest.mark.parametrize("binary_in", [True, False])
    @pytest.mark.parametrize("outputs", ["default", "binary", "json"])
    @pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
    def test_infer(
        self,
        client: Any,
        triton: Any,
        expected: np.ndarray,
        binary_in: bool,
        outputs: str,
        compression: str | None,
    ) -> None:
        wanted = (
            None
            if outputs == "default"
            else [triton.InferRequestedOutput("output", binary_data=outputs == "binary")]
        )
        result = client.infer(
            "tiny",
            [self.input(triton, binary=binary_in)],
            outputs=wanted,
            request_id="a request",
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        )
        assert result.as_numpy("output").tolist() == expected.tolist()
        answer = result.get_response()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("tiny", "2", "a request")

    @pytest.mark.parametrize(
        ("dtype", "datatype"),
        [
            ("f8", "FP64"),
            ("f2", "FP16"),
            ("i1", "INT8"),
            ("i4", "INT32"),
            ("i8", "INT64"),
            ("u1", "UINT8"),
            ("?", "BOOL"),
        ],
    )
    @pytest.mark.parametrize("binary", [True, False])
    def test_other_datatypes(
        self, client: Any, triton: Any, tiny_store: Path, dtype: str, datatype: str, binary: bool
    ) -> None:
        if datatype == "FP16" and not binary:
            pytest.skip("FP16 has no JSON form in tritonclient")
        x = np.array([[1, 0, 1, 1]], dtype=dtype)
        result = client.infer("tiny", [self.input(triton, x, binary=binary, datatype=datatype)])
        wanted = load_model(tiny_store / "models/tiny").predict(x.astype(np.float32))
        assert result.as_numpy("output").tolist() == wanted.tolist()

    def test_versions_and_async(
        self, client: Any, triton: Any, tiny_store: Path, expected: np.ndarray
    ) -> None:
        first = client.infer("tiny", [self.input(triton)], model_version="1")
        wanted = load_model(tiny_store / "models/tiny/1").predict(X)
        assert first.as_numpy("output").tolist() == wanted.tolist()
        later = client.async_infer("tiny", [self.input(triton)])
        assert later.get_result().as_numpy("output").tolist() == expected.tolist()

    @pytest.mark.parametrize("binary", [True, False])
    def test_classification(self, client: Any, triton: Any, expected: np.ndarray, binary: bool) -> None:
        wanted = [triton.InferRequestedOutput("output", binary_data=binary, class_count=2)]
        strings = client.infer("tiny", [self.input(triton)], outputs=wanted).as_numpy("output")
        assert strings.shape == (2, 2)
        for row, values in zip(strings.tolist(), expected.tolist(), strict=True):
            texts = [text.decode() if isinstance(text, bytes) else text for text in row]
            order = sorted(range(3), key=lambda i: -values[i])[:2]
            assert [text.split(":")[1:] for text in texts] == [[str(i), "abc"[i]] for i in order]

    def test_named_features(self, client: Any, triton: Any) -> None:
        columns = {
            "area m/2": (np.array([3.0, 4.0]), "FP64"),
            "new": (np.array([True, False]), "BOOL"),
            "town": (np.array([b"Hue", b"Ha Noi"], dtype=object), "BYTES"),
        }
        for binary in (True, False):
            inputs = []
            for name, (values, datatype) in columns.items():
                tensor = triton.InferInput(name, [2], datatype)
                tensor.set_data_from_numpy(values, binary_data=binary)
                inputs.append(tensor)
            result = client.infer("price", inputs)
            # price = 10 + 2 * ((area - 0.5) * 2 + 2 new + 3 Hue + 4 Ha Noi + 5 flat + 6 gable), roof flat stands in
            assert result.as_numpy("output").tolist() == [[40.0], [42.0]]

    def test_raw_binary(self, url: str, expected: np.ndarray, triton: Any) -> None:
        request = urllib.request.Request(
            f"{url}/v2/models/tiny/infer",
            X.tobytes(),
            {"Inference-Header-Content-Length": "0", "Content-Type": "x/y"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            length = int(answer.headers["Inference-Header-Content-Length"])
            result = triton.InferResult.from_response_body(answer.read(), header_length=length)
        assert result.as_numpy("output").tolist() == expected.tolist()

    def test_repository(self, client: Any, triton: Any, expected: np.ndarray) -> None:
        listed = [(row["name"], row["version"], row["state"]) for row in client.get_model_repository_index()]
        assert listed == [("price", "1", "READY"), ("tiny", "1", "READY"), ("tiny", "2", "READY")]
        client.unload_model("tiny", headers=ADMIN)
        assert not client.is_model_ready("tiny")
        states = {row["name"]: row["state"] for row in client.get_model_repository_index()}
        assert states == {"price": "READY", "tiny": "UNAVAILABLE"}
        client.load_model("tiny", headers=ADMIN)
        assert client.infer("tiny", [self.input(triton)]).as_numpy("output").tolist() == expected.tolist()
        with pytest.raises(triton.InferenceServerException, match="admin token"):
            client.unload_model("tiny")

    def test_errors_are_told(self, client: Any, triton: Any) -> None:
        for model, tensor, message in (
            ("nothing", self.input(triton), "no such model"),
            (
                "tiny",
                self.input(triton, np.zeros((1, 5), np.float32)),
                r"/inputs/0/shape: expected \[rows, 4\]",
            ),
            ("tiny", self.input(triton, np.full((1, 4), np.inf, np.float32)), "finite"),
        ):
            with pytest.raises(triton.InferenceServerException, match=message) as caught:
                client.infer(model, [tensor])
            assert caught.value.status() in ("400", "404", "422")
        wrong = triton.InferInput("x", [1, 4], "FP32")
        wrong.set_data_from_numpy(np.zeros((1, 4), np.float32))
        with pytest.raises(triton.InferenceServerException, match="expected one input named input"):
            client.infer("tiny", [wrong])
        with pytest.raises(triton.InferenceServerException, match="expected one output, named output"):
            client.infer("tiny", [self.input(triton)], outputs=[triton.InferRequestedOutput("x")])


def peer(name: str) -> Path:
    """The interpreter of an environment that has somebody's client, or skip."""
    python = present(name)
    if python is None:
        pytest.skip(f"{name} is not installed (its pins conflict with ours): make conformance does that")
    return python


@pytest.mark.optional
class TestKServe:
    """KServe's InferenceRESTClient, both protocols, in an environment of its own."""

    def test_calls(self, url: str, expected: np.ndarray) -> None:
        script = Path(__file__).with_name("kserve_calls.py")
        given = [json.dumps(values.tolist()) for values in (X, expected)]
        done = subprocess.run(
            [peer("kserve"), script, url, *given], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "both protocols\n"


@pytest.mark.optional
class TestMLServer:
    """``mlserver infer`` and MLServer's own types, in an environment of its own."""

    @pytest.fixture
    def mlserver(self) -> str:
        return str(peer("mlserver").with_name("mlserver"))

    def test_infer(self, mlserver: str, url: str, expected: np.ndarray, tmp_path: Path) -> None:
        tensor = {"name": "input", "shape": [2, 4], "datatype": "FP32", "data": X.ravel().tolist()}
        (tmp_path / "in").write_text(
            "\n".join([json.dumps({"id": "a", "inputs": [tensor]})] * 3), encoding="utf-8"
        )
        host = url.removeprefix("http://")
        for extra in ([], ["--binary-data"]):
            subprocess.run(
                [
                    mlserver,
                    "infer",
                    "-u",
                    host,
                    "-m",
                    "tiny",
                    "-i",
                    tmp_path / "in",
                    "-o",
                    tmp_path / "out",
                    *extra,
                ],
                check=True,
                capture_output=True,
                timeout=60,
            )
            lines = (tmp_path / "out").read_text(encoding="utf-8").splitlines()
            assert len(lines) == 3
            for line in map(json.loads, lines):
                assert line["model_name"] == "tiny"
                assert np.float32(line["outputs"][0]["data"]).ravel().tolist() == expected.ravel().tolist()


class TestTensorFlowServing:
    """As its documents say it is asked; there is no client but HTTP."""

    def ask(self, url: str, path: str, document: Any = None) -> Any:
        body = None if document is None else json.dumps(document).encode()
        with urllib.request.urlopen(urllib.request.Request(url + path, body), timeout=20) as answer:
            return json.load(answer)

    @pytest.mark.parametrize("where", ["", "/versions/2"])
    def test_predict(self, url: str, expected: np.ndarray, where: str) -> None:
        path = f"/v1/models/tiny{where}:predict"
        for document, member in (
            ({"instances": X.tolist()}, "predictions"),
            (
                {"signature_name": "serving_default", "instances": [{"input": row} for row in X.tolist()]},
                "predictions",
            ),
            ({"instances": [{f"x{i}": v for i, v in enumerate(row)} for row in X.tolist()]}, "predictions"),
            ({"inputs": X.tolist()}, "outputs"),
            ({"inputs": {"input": X.tolist()}}, "outputs"),
            ({"inputs": {f"x{i}": column for i, column in enumerate(X.T.tolist())}}, "outputs"),
        ):
            answer = self.ask(url, path, document)
            assert list(answer) == [member]
            assert np.float32(answer[member]).tolist() == expected.tolist()

    def test_status_and_metadata(self, url: str) -> None:
        available = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        assert self.ask(url, "/v1/models/tiny")["model_version_status"][0] == {"version": "2", **available}
        assert self.ask(url, "/v1/models/tiny/versions/1") == {
            "model_version_status": [{"version": "1", **available}]
        }
        for path in ("/v1/models/tiny/metadata", "/v1/models/tiny/versions/2/metadata"):
            metadata = self.ask(url, path)
            assert metadata["model_spec"] == {"name": "tiny", "signature_name": "", "version": "2"}
            signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
            assert signature["inputs"]["input"]["tensor_shape"]["dim"][1]["size"] == "4"

    def test_errors_are_told(self, url: str) -> None:
        for path, document, status in (
            ("/v1/models/nothing:predict", {"instances": [[1]]}, 404),
            ("/v1/models/tiny:predict", {"instances": [[1]]}, 400),
            ("/v1/models/tiny:predict", {"instances": [], "inputs": []}, 400),
            ("/v1/models/tiny:predict", {"signature_name": "x", "instances": [[1, 2, 3, 4]]}, 400),
            ("/v1/models/tiny:predict", {"inputs": {"x0": [1], "x1": [1, 2]}}, 400),
            ("/v1/models/tiny/labels/canary:predict", {"instances": [[1, 2, 3, 4]]}, 404),
        ):
            with pytest.raises(urllib.error.HTTPError) as caught:
                self.ask(url, path, document)
            assert caught.value.code == status
            assert json.load(caught.value)["error"]
