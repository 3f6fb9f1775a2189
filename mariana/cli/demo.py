"""``mariana demo``: the models and the index that ``make run`` serves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click

from mariana.cli.options import settings, store_option
from mariana.store import Store


@click.command()
@store_option
def demo(store: Path | None) -> None:
    """Train the demo's networks on real data and index the world's cities; skip what is there already.

    Makes the models `digits` (handwritten digits, 8x8) and `iris` (three species of flowers), and the index `cities`.

    \b
    Example:
      mariana demo && mariana serve
    """
    found = Store(settings(store=store).store)
    models, indexes = found.model_names(), found.index_names()
    wanted: list[tuple[str, bool, Callable[[Store], str]]] = [
        ("model digits", "digits" in models, _digits),
        ("model iris", "iris" in models, _iris),
        ("index cities", "cities" in indexes, _cities),
    ]
    for name, there, make in wanted:
        if there:
            click.echo(f"{name}: there already")
            continue
        click.echo(f"{name}: ", nl=False)  # now, so that one sees what is under way
        start = time.perf_counter()
        told = make(found)
        click.echo(f"{told} ({time.perf_counter() - start:.1f} s)")


def _digits(store: Store) -> str:
    from mariana.trainer import digits  # noqa: PLC0415 - nothing is loaded for what is there already

    net, scores = digits.train()
    x = digits.split().x
    net.export(
        store,
        "digits",
        features=digits.FEATURES,
        labels=range(10),
        targets=["digit"],
        input_shape=(8, 8),
        examples=x,
        record={"data": "digits", "rows": len(x), "metrics": scores},
    )
    return f"trained on handwritten digits, {scores['test']['accuracy']:.1%} of the held-out ones are right"


def _iris(store: Store) -> str:
    from mariana.tables import read_table  # noqa: PLC0415 - as above
    from mariana.trainer.from_table import (  # noqa: PLC0415 - as above
        network,
        prepare,
        publish,
        scores,
        teach,
    )
    from mariana.trainer.recipe import Recipe  # noqa: PLC0415 - as above

    recipe = Recipe(layers=(64, 32), members=1)
    prepared = prepare(read_table("iris"), "species", "auto", recipe)
    net = network(prepared, recipe)
    temperature = teach(net, prepared, recipe)
    metrics = {split: scores(net, prepared, split) for split in prepared.splits}
    publish(net, prepared, metrics, store, "iris", temperature)
    return f"trained on Fisher's iris, {metrics['test']['accuracy']:.1%} of the held-out flowers are right"


def _cities(store: Store) -> str:
    from mariana.cli.index import index_terms  # noqa: PLC0415 - as above

    report = index_terms("cities", store.new_index_path("cities")).report
    return f"{report.entries:,} names of cities, from GeoNames"
