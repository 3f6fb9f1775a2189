"""KServe's own client against a server: ``python kserve_calls.py URL X Y`` in an environment that has it.

X and Y are JSON: rows for the model ``tiny``, and its outputs. Exits 0 when everything is answered as its documents say.
"""

import asyncio
import json
import sys
from typing import Any

import kserve
import numpy as np
from kserve.protocol.infer_type import RequestedOutput


async def v2(client: Any, url: str, x: np.ndarray, expected: list[list[float]]) -> None:
    assert await client.is_server_live(url) is True
    assert await client.is_server_ready(url) is True
    assert await client.is_model_ready(url, "tiny") is True
    assert await client.is_model_ready(url, "nothing") is False
    for binary in (False, True):
        tensor = kserve.InferInput("input", list(x.shape), "FP32")
        tensor.set_data_from_numpy(x, binary_data=binary)
        outputs = [RequestedOutput("output", parameters={"binary_data": binary})]
        request = kserve.InferRequest("tiny", [tensor], request_id="7", request_outputs=outputs)
        answer = await client.infer(url, request, "tiny")
        assert answer.id == "7"
        assert answer.outputs[0].as_numpy().tolist() == expected
    plain = {"inputs": [{"name": "input", "shape": list(x.shape), "datatype": "FP32", "data": x.tolist()}]}
    answer = await client.infer(url, plain, "tiny")
    assert np.float32(answer.outputs[0].data).tolist() == np.ravel(expected).tolist()


async def v1(client: Any, url: str, x: np.ndarray, expected: list[list[float]]) -> None:
    assert await client.is_model_ready(url, "tiny") is True
    answer = await client.infer(url, {"instances": x.tolist()}, "tiny")
    assert np.float32(answer["predictions"]).tolist() == expected


async def main(url: str, x: str, y: str) -> None:
    for protocol, calls in (("v2", v2), ("v1", v1)):
        client = kserve.InferenceRESTClient(kserve.RESTConfig(protocol=protocol))
        try:
            await calls(client, url, np.float32(json.loads(x)), np.float32(json.loads(y)).tolist())
        finally:
            await client.close()
    sys.stdout.write("both protocols\n")


asyncio.run(main(*sys.argv[1:]))
