"""Logs for TensorBoard: its event files are records of a tiny protocol buffer, written here without TensorFlow.

A record is its length, the CRC of the length, the data, and the CRC of the data (``tensorflow/core/lib/io/record_writer``);
an event holds the time, the step and a summary of named numbers (``tensorflow/core/util/event.proto``, ``summary.proto``).
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from .callbacks import Callback, Logs


class TensorBoard(Callback):
    """Writes loss and metrics of each epoch for ``tensorboard --logdir``: curves of training and validation together.

    Args:
        log_dir: folder; the runs ``train`` and ``validation`` are made in it, as Keras does.
    """

    def __init__(self, log_dir: str | Path = "logs") -> None:
        self.log_dir = Path(log_dir)
        self._paths: dict[str, Path] = {}

    def on_train_begin(self) -> None:
        """Begin new event files when there is something to write."""
        self._paths = {}

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Append the numbers."""
        splits: dict[str, dict[str, float]] = {"train": {}, "validation": {}}
        for name, value in logs.items():
            split = "validation" if name.startswith("val_") else "train"
            splits[split][f"epoch_{name.removeprefix('val_')}"] = float(value)
        optimizer = self.model.optimizer
        if optimizer is not None:
            splits["train"]["epoch_learning_rate"] = optimizer.learning_rate
        for split, values in splits.items():
            if values:
                self._append(split, epoch, values)

    def _append(self, split: str, step: int, values: Mapping[str, float]) -> None:
        now = time.time()
        start = b""
        if split not in self._paths:
            folder = self.log_dir / split
            folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{now:.6f}.{socket.gethostname()}.{os.getpid()}.v2"
            self._paths[split] = folder / name
            start = record(event(now, version="brain.Event:2"))
        with self._paths[split].open("ab") as file:
            file.write(start + record(event(now, step, values)))


def record(data: bytes) -> bytes:
    """Return data as a record of an event file."""
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def event(
    seconds: float, step: int = 0, values: Mapping[str, float] | None = None, *, version: str = ""
) -> bytes:
    """Return an event: ``wall_time`` = 1, ``step`` = 2, ``file_version`` = 3, ``summary`` = 5."""
    message = b"\x09" + struct.pack("<d", seconds)
    if step:
        message += b"\x10" + _varint(step)
    if version:
        message += _field(3, version.encode())
    if values:
        # Summary.value = 1; of a value the tag = 1 and simple_value = 2
        items = (
            _field(1, name.encode()) + b"\x15" + struct.pack("<f", value) for name, value in values.items()
        )
        message += _field(5, b"".join(_field(1, item) for item in items))
    return message


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _table() -> list[int]:
    """Return CRC-32C (Castagnoli) of each byte."""
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)  # noqa: PLW2901 - the shift register
        table.append(crc)
    return table


_CRC = _table()


def _masked_crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
