"""Ask a digits model what it sees in drawn digits: pen strokes, reduced to 8x8 as the console's pad does it.

Run ``python tools/drawn_digits.py store/models/digits``. The strokes below are other hands than the training images:
the share that is recognised says how the pad will feel, which accuracy on held-out images does not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

import mariana

Stroke = list[tuple[float, float]]

DRAWINGS_A_DIGIT = 30
SIDE = 32
INK = 0.305 * SIDE * SIDE  # what the training images of every digit hold, on average


def _arc(x: float, y: float, width: float, height: float, start: float, end: float) -> Stroke:
    """Return points of an ellipse around (x, y), from one angle in degrees to another, clockwise on screen."""
    angles = np.deg2rad(np.linspace(start, end, 24))
    return [(x + width * float(np.cos(a)), y + height * float(np.sin(a))) for a in angles]


# Ways of writing each digit in a box from (0, 0), top left, to (1, 1).
WAYS: tuple[tuple[tuple[Stroke, ...], ...], ...] = (
    ((_arc(0.5, 0.5, 0.32, 0.46, -90, 270),), (_arc(0.5, 0.5, 0.24, 0.48, -60, 300),)),
    (
        ([(0.5, 0.03), (0.5, 0.97)],),
        ([(0.35, 0.2), (0.52, 0.03), (0.52, 0.97)],),
        ([(0.35, 0.2), (0.52, 0.03), (0.52, 0.97)], [(0.3, 0.97), (0.75, 0.97)]),
        ([(0.6, 0.03), (0.42, 0.97)],),
    ),
    (
        ([*_arc(0.5, 0.28, 0.3, 0.25, 180, 390), (0.25, 0.95), (0.8, 0.95)],),
        ([*_arc(0.48, 0.3, 0.3, 0.27, 200, 400), (0.2, 0.9), (0.35, 0.85), (0.8, 0.97)],),
    ),
    (
        (_arc(0.45, 0.27, 0.28, 0.24, 200, 440) + _arc(0.45, 0.73, 0.32, 0.25, -80, 150),),
        ([(0.2, 0.05), (0.75, 0.05), (0.45, 0.42), *_arc(0.45, 0.7, 0.3, 0.27, -80, 150)],),
    ),
    (
        ([(0.55, 0.03), (0.15, 0.62), (0.85, 0.62)], [(0.65, 0.3), (0.65, 0.97)]),
        ([(0.2, 0.05), (0.18, 0.5), (0.8, 0.5)], [(0.7, 0.05), (0.7, 0.97)]),
    ),
    (
        ([(0.78, 0.05), (0.3, 0.05), (0.27, 0.42), *_arc(0.47, 0.67, 0.3, 0.29, -120, 150)],),
        ([(0.3, 0.05), (0.27, 0.45), *_arc(0.47, 0.68, 0.3, 0.28, -110, 150)], [(0.3, 0.05), (0.8, 0.05)]),
    ),
    (
        ([(0.65, 0.03), (0.35, 0.35), *_arc(0.5, 0.7, 0.27, 0.26, 180, 540)],),
        ([(0.55, 0.03), (0.3, 0.4), (0.25, 0.7), *_arc(0.48, 0.72, 0.24, 0.25, 170, 530)],),
    ),
    (
        ([(0.2, 0.05), (0.8, 0.05), (0.42, 0.97)],),
        ([(0.2, 0.05), (0.8, 0.05), (0.42, 0.97)], [(0.35, 0.5), (0.72, 0.5)]),
        ([(0.2, 0.15), (0.2, 0.05), (0.8, 0.05), (0.5, 0.5), (0.42, 0.97)],),
    ),
    (
        (_arc(0.5, 0.27, 0.24, 0.23, 90, 450) + _arc(0.5, 0.73, 0.29, 0.24, -90, 270),),
        (
            [
                (0.7, 0.15),
                *_arc(0.5, 0.27, 0.22, 0.22, -40, -270),
                *_arc(0.5, 0.73, 0.27, 0.24, -80, 270),
                (0.7, 0.2),
            ],
        ),
    ),
    (
        ([*_arc(0.5, 0.3, 0.26, 0.26, 0, 360), (0.76, 0.3), (0.72, 0.97)],),
        ([*_arc(0.5, 0.3, 0.26, 0.26, -20, 340), (0.75, 0.5), *_arc(0.5, 0.72, 0.25, 0.24, 0, 140)],),
    ),
)


def draw(digit: int, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Return the strokes of a digit, each (points, 2) as x and y, written by one of many hands."""
    ways = WAYS[digit]
    angle, slant, width = rng.uniform(-0.17, 0.17), rng.uniform(-0.25, 0.25), rng.uniform(0.75, 1.2)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    hand = np.array([[width, 0], [-slant, 1]]) @ turn
    strokes = [np.array(stroke) - 0.5 for stroke in ways[rng.integers(len(ways))]]
    return [(stroke + rng.normal(0, 0.012, stroke.shape)) @ hand for stroke in strokes]


def reduce(strokes: Sequence[NDArray[np.float64]]) -> NDArray[np.float32]:
    """Return (64,) counts of ink, 0 to 16: the drawing fills 32x32 with the thinnest pen that gives enough ink."""
    points = np.concatenate(strokes)
    low, high = points.min(axis=0), points.max(axis=0)
    ys, xs = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    for pen in np.arange(1.0, 12.0, 0.5):
        scale = (SIDE - pen) / max(float((high - low).max()), 1e-9)
        ink = np.zeros((SIDE, SIDE), dtype=bool)
        for stroke in strokes:
            at = (stroke - (low + high) / 2) * scale + SIDE / 2
            for (x0, y0), (x1, y1) in pairwise(at):
                dx, dy = x1 - x0, y1 - y0
                along = np.clip(((xs - x0) * dx + (ys - y0) * dy) / (dx * dx + dy * dy + 1e-12), 0, 1)
                ink |= (xs - x0 - along * dx) ** 2 + (ys - y0 - along * dy) ** 2 <= (pen / 2) ** 2
        if ink.sum() >= INK:
            break
    return ink.reshape(8, 4, 8, 4).sum(axis=(1, 3)).ravel().astype(np.float32)


def main(path: str) -> None:
    """Print the share recognised, of all and digit by digit."""
    rng = np.random.default_rng(7)
    drawn = np.array([[reduce(draw(digit, rng)) for _ in range(DRAWINGS_A_DIGIT)] for digit in range(10)])
    model = mariana.load_model(path)
    found = model.predict(drawn.reshape(-1, 64)).argmax(axis=1).reshape(10, -1)
    right = (found == np.arange(10)[:, None]).mean(axis=1)
    sys.stdout.write(f"recognised {right.mean():.1%} of {found.size} drawn digits\n")
    sys.stdout.write(" ".join(f"{digit}:{share:.0%}" for digit, share in enumerate(right)) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/drawn_digits.py MODEL, for example store/models/digits")
    main(sys.argv[1])
