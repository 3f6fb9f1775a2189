"""``mariana bench``: this machine's figures beside its measured limits."""

from __future__ import annotations

import http.client
import json
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from time import perf_counter, sleep

import click

from mariana._binding import usable_isas
from mariana.cli.options import json_option
from mariana.errors import InvalidInputError, StoreError


@click.command()
@click.argument("what", type=click.Choice(["dense", "index", "http", "train"]), default="dense")
@click.option(
    "--isa", "isas", multiple=True, help="Instruction set for dense; may be given again.  [default: the best]"
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.0001, 10),
    default=0.01,
    show_default=True,
    help="About so long a round.",
)
@json_option
def bench(what: str, isas: tuple[str, ...], seconds: float, as_json: bool) -> None:
    """Measure this machine: its limits, and how near to them we are.

    dense: multiply-adds and reads that one core can do at most, then the kernels as a share of that, in the same
    minute. index: completions of the bundled cities, letter by letter. train: an epoch of the bundled digits. http:
    requests to a server of its own. One thread each. Other libraries beside ours: `make bench` in the sources.

    \b
    Example:
      mariana bench dense
      mariana bench dense --isa avx2 --isa generic --json
      mariana bench index
    """
    if isas and what != "dense":
        raise click.UsageError("--isa belongs to dense")
    if unknown := set(isas) - set(usable_isas()):
        raise InvalidInputError(
            f"this machine cannot run {min(unknown)[:40]!r}; it has: {', '.join(usable_isas())}"
        )
    if what == "dense":
        _dense(isas, seconds, as_json=as_json)
        return
    facts = {"index": _index, "train": _train, "http": _http}[what](seconds)
    click.echo(
        json.dumps(facts)
        if as_json
        else "\n".join(f"{name:36} {value:,.4g}" for name, value in facts.items())
    )


def _dense(isas: tuple[str, ...], seconds: float, *, as_json: bool) -> None:
    from mariana import roofline  # noqa: PLC0415 - only what is asked for is loaded

    roofs, rows = [], []
    for roof in roofline.best_of(roofline.roofs(seconds * 2), roofline.roofs(seconds * 2)):
        roofs.append(roof)
        if not as_json:
            click.echo(f"{roof.name:34} {roof.best:9,.1f} {roof.unit:8} median {roof.median:,.1f}")
    if not as_json:
        click.echo(
            f"\n{'network':20} {'batch':>5} {'precision':13} {'on':11} {'best us':>9} {'median':>9} {'G/s':>7}  share of its roof"
        )
    for shape in roofline.SHAPES:
        roofs = roofline.best_of(roofs, roofline.roofs(seconds))  # again: the machine's speed swings
        for row in roofline.measure(roofs, shapes=(shape,), isas=isas or (None,), seconds=seconds):
            rows.append(row)
            if as_json:
                continue
            share = f"{row.share:6.0%} of {row.bound}" if row.share is not None else "  no roof measured"
            click.echo(
                f"{'-'.join(map(str, row.shape)):20} {row.batch:5} {row.precision:13} {row.isa:11} {row.best * 1e6:9,.2f} "
                f"{row.median * 1e6:9,.2f} {row.rate:7,.1f}  {share}"
            )
    if as_json:
        click.echo(
            json.dumps({"roofs": [asdict(roof) for roof in roofs], "rows": [asdict(row) for row in rows]})
        )


def _index(seconds: float) -> dict[str, float]:
    """Return microseconds a keystroke: the names of the largest cities, letter by letter."""
    from mariana.autocomplete import open_index  # noqa: PLC0415 - as above
    from mariana.cli.index import index_terms  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory() as folder:
        report = index_terms("cities", Path(folder) / "cities").report
        with open_index(report.path) as index:
            names = [completion.text for completion in index.complete("", limit=100)]
            prefixes = [name[:end] for name in names for end in range(1, len(name) + 1)]
            facts: dict[str, float] = {
                "entries": report.entries,
                "bytes an entry": report.bytes / report.entries,
            }
            for fuzzy in ("0", "auto"):
                times = []
                end = perf_counter() + max(seconds * 100, 0.2)
                while perf_counter() < end:
                    for prefix in prefixes:
                        start = perf_counter()
                        index.complete(prefix, 10, 0 if fuzzy == "0" else "auto")
                        times.append((perf_counter() - start) * 1e6)
                facts[f"us a keystroke, fuzzy {fuzzy}, median"] = statistics.median(times)
                facts[f"us a keystroke, fuzzy {fuzzy}, p99"] = sorted(times)[len(times) * 99 // 100]
    return facts


def _train(seconds: float) -> dict[str, float]:
    """Return rows a second of one epoch, and its multiply-adds as a share of what one core can do."""
    from mariana import roofline  # noqa: PLC0415 - as above
    from mariana.trainer import Dense, Sequential  # noqa: PLC0415 - as above
    from mariana.trainer.digits import split  # noqa: PLC0415 - as above

    data = split()
    widths = (data.x.shape[1], 256, 128, 10)
    net = Sequential([Dense(256, "relu"), Dense(128, "relu"), Dense(10, "softmax")], seed=0)
    net.compile("adam", "sparse_categorical_crossentropy")
    times = []
    for _ in range(6):
        start = perf_counter()
        net.fit(data.x, data.y, batch_size=64, epochs=1, verbose=0)
        times.append(perf_counter() - start)
    weights = sum(a * b for a, b in pairwise(widths))
    rate = 6 * weights * len(data.x) / min(times[1:]) / 1e9  # forward, and twice as much backward
    peak = max(roof.best for roof in roofline.roofs(seconds) if roof.name.endswith("float32"))
    return {
        "rows": len(data.x),
        "rows a second, best": len(data.x) / min(times[1:]),
        "GFLOP/s, best": rate,
        "share of one core's multiply-adds": rate / peak,
    }


def _http(seconds: float) -> dict[str, float]:
    """Return requests a second of a server of its own, over one connection that stays open, and their times."""
    from mariana import roofline  # noqa: PLC0415 - as above
    from mariana.format import to_bytes  # noqa: PLC0415 - as above
    from mariana.store import Store  # noqa: PLC0415 - as above

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        net = roofline.network((784, 256, 128, 10))
        Store(folder).publish_model("net", to_bytes(net.metadata, net.tensors))
        command = [
            sys.executable,
            "-m",
            "mariana",
            "serve",
            "--store",
            folder,
            "--port",
            str(port),
            "--workers",
            "1",
        ]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - ourselves
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                _connect(connection, server)
                return _requests(connection, seconds)
        finally:
            server.terminate()
            server.wait(10)


def _connect(connection: http.client.HTTPConnection, server: subprocess.Popen[bytes]) -> None:
    """Wait for the server."""
    start = perf_counter()
    while True:
        try:
            connection.connect()
        except OSError:
            if server.poll() is not None or perf_counter() > start + 30:
                raise StoreError("the server did not start; try mariana serve") from None
            sleep(0.05)
        else:
            return


def _requests(connection: http.client.HTTPConnection, seconds: float) -> dict[str, float]:
    """Send requests, one after the other."""
    row = [round(i / 784, 4) for i in range(784)]
    bodies = {
        "784 floats as JSON": (json.dumps({"instances": [row]}).encode(), "application/json"),
        "784 floats as bytes": (struct.pack("<784f", *row), "application/octet-stream"),
    }
    facts: dict[str, float] = {}
    for name, (body, kind) in bodies.items():
        times = []
        end = perf_counter() + max(seconds * 100, 0.2)
        while perf_counter() < end:
            start = perf_counter()
            connection.request("POST", "/v1/models/net/predict", body, {"Content-Type": kind})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise StoreError(f"the server answered {answer.status}")
            times.append(perf_counter() - start)
        facts[f"requests a second, {name}"] = len(times) / sum(times)
        facts[f"us, median, {name}"] = statistics.median(times) * 1e6
        facts[f"us, p99, {name}"] = sorted(times)[len(times) * 99 // 100] * 1e6
    return facts
