"""KServe's model server: ``python kserve_net.py MODEL PORT`` in its own environment."""

import sys
from typing import Any

import kserve
import numpy as np
from forward import forward


class Net(kserve.Model):  # type: ignore[misc]
    def __init__(self, path: str) -> None:
        super().__init__("net")
        self.net = dict(np.load(path))
        self.ready = True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        del headers, response_headers
        y = forward(self.net, payload.inputs[0].as_numpy())
        output = kserve.InferOutput("output", list(y.shape), "FP32")
        output.set_data_from_numpy(y, binary_data=True)
        return kserve.InferResponse(payload.id or "1", "net", [output])


if __name__ == "__main__":
    kserve.ModelServer(http_port=int(sys.argv[2]), enable_grpc=False, workers=1).start([Net(sys.argv[1])])
