"""The servers that benchmarks/http.py compares: ``python -m benchmarks.http_servers NAME STORE SOCKET``."""

import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn


def naive(path: Path) -> Any:
    """Return what one writes first: FastAPI with a typed body, NumPy, and a response model."""
    from fastapi import FastAPI
    from pydantic import BaseModel

    from mariana.format import read_model

    file = read_model(next(path.glob("models/*/1/model.safetensors")))
    layers = [
        (file.tensors[f"{la.name}.weight"], file.tensors[f"{la.name}.bias"], la.activation)
        for la in file.metadata.layers
    ]
    labels = file.metadata.labels

    class Body(BaseModel):
        instances: list[list[float]]

    class Prediction(BaseModel):
        label: int
        probability: float
        probabilities: list[float]

    class Answer(BaseModel):
        model: str
        version: int
        labels: list[int]
        predictions: list[Prediction]

    app = FastAPI()

    @app.post("/v1/models/net/predict")
    async def predict(body: Body) -> Answer:
        y = np.array(body.instances, dtype=np.float32)
        for weight, bias, activation in layers:
            y = y @ weight + bias
            if activation == "relu":
                np.maximum(y, 0, out=y)
            else:
                y = np.exp(y - y.max(axis=1, keepdims=True))
                y /= y.sum(axis=1, keepdims=True)
        return Answer(
            model="net",
            version=1,
            labels=list(labels),
            predictions=[
                Prediction(label=labels[int(row.argmax())], probability=row.max(), probabilities=row.tolist())
                for row in y
            ],
        )

    return app


async def empty(scope: Any, receive: Any, send: Any) -> None:
    """Answer nothing to everything, after reading the body: what uvicorn itself costs."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


def ours(path: Path) -> Any:
    """Return Mariana."""
    from mariana.server import create_app
    from mariana.settings import Settings

    return create_app(Settings(store=path, idle_timeout=600))


def main(name: str, store: str, descriptor: str) -> None:
    makers = {
        "ours": ours,
        "ours, other ASGI server": ours,
        "naive twin": naive,
        "empty uvicorn": lambda _: empty,
    }
    app = makers[name](Path(store))
    protocol: Any = "httptools"
    if name == "ours":  # as mariana serve runs it
        from mariana.server.protocol import Protocol

        protocol = Protocol
    config = uvicorn.Config(
        app,
        http=protocol,
        loop="uvloop",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=600,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(descriptor))])


if __name__ == "__main__":
    main(*sys.argv[1:])
