"""Dates as rows hold them: texts in ISO 8601, and their parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mariana.format.schema import Feature

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?", re.ASCII)


def read_date(value: object) -> datetime | None:
    """Return what a text in ISO 8601 (2024-03-05, 2024-03-05T14:30:00) or a date says; None if it is neither.

    The time is taken as it stands there: an offset from UTC is read over.
    """
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 - the time as it is written
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def date_text(features: Sequence[Feature], values: Sequence[float | None]) -> str:
    """Return a date with these parts, in ISO 8601; a part that is not told is the first one."""
    told = {
        feature.date.part: value
        for feature, value in zip(features, values, strict=True)
        if feature.kind == "numeric" and feature.date is not None and value is not None
    }
    text = f"{int(told.get('year', 1970)):04}-{int(told.get('month', 1)):02}-{int(told.get('day', 1)):02}"
    if "hour" not in told:
        return text
    seconds = min(round(told["hour"] * 3600), 86399)
    return f"{text}T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
