"""Kill processes that write to one index, at any moment, again and again; then look whether anything is lost.

Run by test_kill.py: ``python kill_writers.py FOLDER ROUNDS SEED``. Each round forks writers, lets them run for a few
milliseconds, kills them with SIGKILL, and opens the index: every batch is there whole or not at all, and every one that
was acknowledged is there. Prints what it did as JSON; ends with an assertion otherwise.
"""

import itertools
import json
import os
import random
import select
import signal
import sys
import threading
import time
from pathlib import Path

import mariana
from mariana.live import state

BATCH = 5
THREADS = 2
PROCESSES = 2
state.COMPACT_LEAST = 1 << 30  # the writers compact themselves


def write(path: Path, writer: str, acknowledged: int) -> None:
    """Insert and delete batches for ever; tell of each one that was promised."""
    index = mariana.open_index(path)

    def work(name: str) -> None:
        for number in itertools.count():
            batch = f"{name}n{number}"
            index.insert([(f"{batch}-{i}", number + 1) for i in range(BATCH)])
            os.write(acknowledged, f"+{batch}\n".encode())
            if number % 3 == 2:
                gone = f"{name}n{number - 2}"
                index.delete([f"{gone}-{i}" for i in range(BATCH)])
                os.write(acknowledged, f"-{gone}\n".encode())
            if number % 4 == 1:
                index.select(f"{batch}-0")
            if number % 2 == 1:
                index.compact()  # in this process, which is going to be killed

    threads = [threading.Thread(target=work, args=(f"{writer}t{i}",)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_round(path: Path, number: int, rng: random.Random) -> list[str]:
    """Start writers, kill them; return the lines that they told."""
    readers, children = [], []
    for process in range(PROCESSES):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(reader)
                write(path, f"r{number}p{process}", writer)
            finally:
                os._exit(1)
        os.close(writer)
        readers.append(reader)
        children.append(child)
    select.select(readers, [], [], 10)  # not before somebody wrote something
    time.sleep(rng.random() * 0.15)
    for child in rng.sample(children, len(children)):
        os.kill(child, signal.SIGKILL)
    told = b""
    for child, reader in zip(children, readers, strict=True):
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"a writer ended by itself: {status}"
        while chunk := os.read(reader, 1 << 16):
            told += chunk
        os.close(reader)
    return told.decode().splitlines()


def main(path: Path, rounds: int, seed: int) -> None:
    """Run the rounds, and check after each."""
    rng = random.Random(seed)
    mariana.build_index(path, [("base", 1)])
    kept = 1
    sequence = batches = 0
    compactions = set()
    for number in range(rounds):
        lines = run_round(path, number, rng)
        inserted = {line[1:] for line in lines if line.startswith("+")}
        deleted = {line[1:] for line in lines if line.startswith("-")}
        with mariana.open_index(path) as index:
            assert index.sequence >= sequence + len(inserted) + len(deleted)
            sequence = index.sequence
            compactions.add(index.info.path)
            here = 0
            for process in range(PROCESSES):
                for thread in range(THREADS):
                    name = f"r{number}p{process}t{thread}"
                    for n in itertools.count():
                        found = index.complete(f"{name}n{n}-", limit=100, fuzzy=0)
                        batch = f"{name}n{n}"
                        assert len(found) in (0, BATCH), f"half of batch {batch}: {found}"
                        if batch in inserted and batch not in deleted:
                            # its deletion may have been under way
                            pending = f"+{name}n{n + 2}" in lines and n % 3 == 0
                            assert found or pending, f"batch {batch} was acknowledged and is lost"
                        assert not (batch in deleted and found), f"batch {batch} was deleted and is back"
                        here += len(found)
                        if batch not in inserted:
                            break  # the last one, which nobody was told of, may be there or not
            kept += here
            assert len(index) == kept, f"{len(index)} entries, and not {kept}"
            assert len(list(path.glob("*.mrx"))) <= 2, "older segments pile up"
        batches += len(inserted) + len(deleted)
    report = {"rounds": rounds, "acknowledged": batches, "segments": len(compactions), "entries": kept}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
