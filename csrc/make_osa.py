"""Write ``csrc/osa_table.h``: the automaton by which trie_typos.c counts typing errors.

Run ``python csrc/make_osa.py`` after a change here; no file depends on the numbers of the states.

The dynamic program for the optimal string alignment distance keeps, for a path of ``depth`` characters, how far it is
from each beginning of the query. At most ``edits`` errors are of interest, so that only the cells near the diagonal
count, and of those only what is at most ``edits``: there are few such rows, and each is a state. What the next
character does to a row depends on nothing but which of the query's characters near the diagonal it is: five bits.
(Schulz and Mihov, "Fast string correction with Levenshtein automata", IJDAR 2002; with swaps as in Mihov and Schulz,
"Fast approximate search in large dictionaries", Computational Linguistics 2004.)

A state is a row and the costs that a swap would have, if the next character completes it. Cell ``i`` stands for
``depth + i - 2`` characters of the query; bit ``i`` says that the character is the one that follows them.
"""

from __future__ import annotations

from pathlib import Path

BAND = 5
EDITS_MAX = 2

State = tuple[tuple[int, ...], tuple[int, ...]]


def start(edits: int) -> State:
    """Return the state before the first character."""
    none = edits + 1
    return tuple(min(i - 2, none) if i >= 2 else none for i in range(BAND)), (none,) * BAND


def step(state: State, bits: int, edits: int) -> State:
    """Return the state after one more character."""
    row, swap = state
    none = edits + 1
    same = [bool(bits >> i & 1) for i in range(BAND)]
    new: list[int] = []
    for i in range(BAND):
        cost = row[i] + (not same[i])
        if i > 0:
            cost = min(cost, new[i - 1] + 1)
            if same[i - 1]:
                cost = min(cost, swap[i])
        if i + 1 < BAND:
            cost = min(cost, row[i + 1] + 1)
        new.append(min(cost, none))
    swaps = [min(row[i] + 1, none) if i + 1 < BAND and same[i + 1] else none for i in range(BAND)]
    return tuple(new), tuple(swaps)


def clip(state: State, left: int, edits: int) -> State:
    """Return the state without the cells beyond the query, of which ``left`` characters are left at the diagonal."""
    none = edits + 1
    row, swap = state
    return tuple(cell if i - 2 <= left else none for i, cell in enumerate(row)), swap


def states(edits: int) -> list[State]:
    """Return all states that can be reached, the dead one first."""
    dead: State = ((edits + 1,) * BAND, (edits + 1,) * BAND)
    found = [dead]
    seen = {dead}

    def add(state: State) -> None:
        state = dead if min(state[0]) > edits else state
        if state not in seen:
            seen.add(state)
            found.append(state)

    for left in (2, 1, 0):
        add(clip(start(edits), left, edits))
    for state in found:  # grows
        for bits in range(1 << BAND):
            new = step(state, bits, edits)
            for left in (2, 1, 0, -1, -2):
                add(clip(new, left, edits))
    return found


def row(state: State, numbers: dict[State, int], edits: int) -> int:
    """Return a state as the tables have it: where its line in ``next`` begins, and the least distance of any beginning of the query.

    The dead one, of which no cell counts, is at 0, with as great a distance as there is room for.
    """
    least = min(state[0])
    return DEAD if least > edits else 32 * numbers[state] + (least << OSA_LEAST)


OSA_LEAST = 14
DEAD = 3 << OSA_LEAST


def main() -> None:
    """Write the table beside this script."""
    lines = [
        "/* Written by make_osa.py: do not edit. */",
        "/* clang-format off */",
        "#include <stdint.h>",
        "enum { OSA_BITS = 5, OSA_BEFORE = 2 }; /* the window of the query: so many characters, from so many back */",
        "/* A state is where its line in next begins, and in the bits above the least distance of any beginning of the query. */",
        f"enum {{ OSA_LEAST = {OSA_LEAST}, OSA_LINE = {(1 << OSA_LEAST) - 1}, OSA_DEAD = {DEAD} }};",
    ]
    for edits in range(1, EDITS_MAX + 1):
        listed = states(edits)
        numbers = {state: at for at, state in enumerate(listed)}
        if len(listed) * 32 > 1 << OSA_LEAST:
            raise SystemExit("too many states")
        lines.append(f"static const uint16_t osa{edits}_next[{len(listed)} * 32] = {{")
        lines += [
            ",".join(str(row(step(state, bits, edits), numbers, edits)) for bits in range(32)) + ","
            for state in listed
        ]
        lines.append("};")
        lines.append(
            "/* After the step, by how many characters of the query are left: 2 or more, 1, 0, -1, -2; a line has 8. */"
        )
        lines.append(f"static const uint16_t osa{edits}_clip[{len(listed)} * 8] = {{")
        lines += [
            ",".join(str(row(clip(state, left, edits), numbers, edits)) for left in (2, 1, 0, -1, -2))
            + ",0,0,0,"
            for state in listed
        ]
        lines.append("};")
        lines.append("/* The distance of the whole query, likewise. */")
        lines.append(f"static const uint8_t osa{edits}_whole[{len(listed)} * 8] = {{")
        lines += [
            ",".join(str(state[0][left + 2]) for left in (2, 1, 0, -1, -2)) + ",0,0,0," for state in listed
        ]
        lines.append("};")
        lines.append(
            f"enum {{ {', '.join(f'OSA{edits}_START_{left} = {row(clip(start(edits), left, edits), numbers, edits)}' for left in (2, 1, 0))} }};"
        )
    Path(__file__).with_name("osa_table.h").write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
