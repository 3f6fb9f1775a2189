"""Explanations over HTTP: ``?explain=`` on a prediction adds to each what every feature has to do with it."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json
from starlette.datastructures import QueryParams

from mariana.explain import METHODS, Attribution, ExplainMethod, baseline_record, choose, cost

from .errors import Fault, Problem
from .versions import OVERFLOW, Version

PARAMETER = "explain"
VALUES = ("true", "false", *METHODS)

DESCRIPTION = (
    "Adds what each feature has to do with the answer. leave_one_out: the answer minus the answer with the feature at its "
    "baseline (Zeiler and Fergus 2014). gradient_x_input: slope times the way from the baseline (Shrikumar et al. 2016). "
    "integrated_gradients: the same with the mean slope along that way; these shares add up (Sundararajan et al. 2017). "
    "true: the first one for up to 128 features, else the second."
)

ROWS_MAX = 1000
"""Rows of a request: explanations are asked for by people, and one takes far longer than a prediction."""

_thread = ThreadPoolExecutor(1, "explain")  # one request at a time, beside the event loop


def method_of(query: QueryParams, version: Version) -> ExplainMethod | None:
    """Return the method that a query asks for; None: none.

    Raises:
        Problem: 400, it asks twice; 422, for one that there is not.
    """
    asked = query.getlist(PARAMETER) or ["false"]
    if len(asked) > 1:
        raise Problem(
            400, f"the parameter {PARAMETER} is there twice", errors=[Fault("/query", "once, please")]
        )
    value = asked[0]
    if value == "false":
        return None
    if value not in VALUES:
        sentence = f"expected one of {', '.join(VALUES)}"
        raise Problem(422, f"{PARAMETER}: {sentence}", errors=[Fault(f"/{PARAMETER}", sentence)])
    return choose(version.model.info, "auto" if value == "true" else value)


async def explained(
    answer: bytes, version: Version, x: NDArray[np.float32], method: ExplainMethod, max_values: int
) -> bytes:
    """Return the body of a prediction's answer with explanations in it.

    Raises:
        Problem: 413, so many rows take too many numbers to explain.
    """
    info = version.model.info
    each = cost(info, method) * version.model.columns
    most = min(max_values // each, ROWS_MAX)
    if len(x) > most:
        raise Problem(
            413,
            f"{method} runs {cost(info, method)} rows for each that it explains; send at most {most} at a time"
            if most
            else f"{method} takes more than {max_values} values for one row; ask for gradient_x_input",
        )
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_thread, _explained, answer, version, x, method)


def _explained(answer: bytes, version: Version, x: NDArray[np.float32], method: ExplainMethod) -> bytes:
    attributions = version.model.explain(x, method)
    if not all(_finite(one) for told in attributions for one in told):
        raise Problem(422, OVERFLOW)
    info = version.model.info
    document: dict[str, Any] = json.loads(answer)
    for prediction, told in zip(document["predictions"], attributions, strict=True):
        prediction["explanation"] = _told(told)
    document["explain"] = {
        "method": method,
        "of": "log_odds" if info.task == "classification" else "value",
        "baseline": baseline_record(info),
    }
    return to_json(document)


def _finite(one: Attribution) -> bool:
    return all(map(math.isfinite, (one.value, one.baseline_value, *one.shares.values())))


def _told(attributions: Sequence[Attribution]) -> Any:
    rows = [
        {
            "output": one.output,
            "value": one.value,
            "baseline_value": one.baseline_value,
            "shares": {name: float(f"{share:.6g}") for name, share in one.shares.items()},
        }
        for one in attributions
    ]
    return rows[0] if len(rows) == 1 else rows
