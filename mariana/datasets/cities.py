"""The cities of the world with 15,000 inhabitants or more, from GeoNames (CC BY 4.0); docs/data.md tells the rest."""

from __future__ import annotations

from pathlib import Path


def cities_path() -> Path:
    """Return the file: gzipped TSV with the columns text, score (inhabitants) and payload (JSON).

    The payload holds ``country`` (ISO 3166-1 alpha-2), ``lat``, ``lon`` in degrees, and, where the text is not
    GeoNames' main name of the city, that name as ``city``.
    """
    return Path(__file__).with_name("cities.tsv.gz")
