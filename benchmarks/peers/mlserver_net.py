"""MLServer, without worker processes: ``python mlserver_net.py MODEL PORT`` in its own environment."""

import json
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from forward import forward
from mlserver import MLModel
from mlserver.cli import main
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Net(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        self.net = dict(np.load(self.settings.parameters.uri))
        return True

    async def predict(self, payload: Any) -> Any:
        y = forward(self.net, NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name="net", outputs=[NumpyCodec.encode_output("output", y)])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def serve(path: str, port: int) -> None:
    folder = Path(tempfile.mkdtemp())
    ports = {"http_port": port, "grpc_port": _free_port(), "metrics_port": _free_port()}
    settings = {**ports, "parallel_workers": 0, "host": "127.0.0.1", "debug": False}
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    model = {"name": "net", "implementation": "mlserver_net.Net", "parameters": {"uri": path}}
    (folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    sys.argv = ["mlserver", "start", str(folder)]
    main()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
