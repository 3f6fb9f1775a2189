"""Checkpoints: a training that was stopped at any step, even by ``kill -9``, goes on as if it had not been.

A checkpoint is one safetensors file: arrays by name, and everything else as JSON in its metadata. It holds no pickle, so
that loading one can never run code. It is written beside its place, fsynced and renamed: it is whole or the one before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.numpy

from mariana.errors import FileFormatError, InvalidInputError
from mariana.store import write_whole

from . import checks
from .buffers import Array
from .callbacks import Callback, Logs

_KEY = "mariana_training"
_VERSION = 1


def save(path: str | Path, document: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write a JSON document and arrays as one safetensors file, whole.

    Raises:
        StoreError: the file cannot be written.
    """
    text = json.dumps({"version": _VERSION, **document})
    tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_whole(Path(path), safetensors.numpy.save(tensors, metadata={_KEY: text}))


def load(path: str | Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return what ``save`` wrote.

    Raises:
        FileFormatError: the file is damaged, or no such file.
        OSError: it cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        tensors = safetensors.numpy.load(data)
        length = int.from_bytes(data[:8], "little")
        document = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_KEY])
        version = document["version"]
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError):
        raise FileFormatError(f"{path}: damaged, or not written by a training") from None
    if version != _VERSION:
        raise FileFormatError(f"{path}: version {version!r:.20} is not {_VERSION}, the one known here")
    return document, tensors


_REMEDIES = {
    "backend": "choose that one (--backend, MARIANA_BACKEND, use_backend; MARIANA_ISA for its instruction set)"
}
"""What to do about a difference, where it is not obvious."""


def check_same(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Compare what a training is made of with what a checkpoint was made of, both as plain JSON.

    Raises:
        InvalidInputError: they differ; the message says in what.
    """
    for name, value in mine.items():
        if theirs.get(name) != value:
            raise InvalidInputError(
                f"the checkpoint belongs to another training: its {name} is {theirs.get(name)!r:.100}, "
                f"here it is {value!r:.100}; {_REMEDIES.get(name, 'train with the same arguments')}, or remove the checkpoint"
            )


class BackupAndRestore(Callback):
    """Keeps a checkpoint of the training, and begins with the one that it finds: the result is the same, bit by bit.

    Call ``fit`` again with the same network, data and arguments, and a backup of the interrupted training is found and
    gone on from; other ones are refused. When the training has ended, the backup is removed.

    Args:
        backup_dir: folder of the checkpoint, made if it is not there.
        save_freq: ``epoch``, or a number of steps.
        at_most_every: seconds that must have passed since the last one was written.
        delete_checkpoint: whether it is removed at the end.
        options: what else must be the same for a training to go on, by name, as JSON: what the network does not show.
    """

    def __init__(
        self,
        backup_dir: str | Path,
        save_freq: Literal["epoch"] | int = "epoch",
        *,
        at_most_every: float = 0.0,
        delete_checkpoint: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(backup_dir) / "training.safetensors"
        if save_freq != "epoch" and not isinstance(save_freq, int):
            raise InvalidInputError(f"save_freq is {save_freq!r}: use 'epoch' or a number of steps")
        self.save_freq = save_freq if save_freq == "epoch" else checks.whole_number("save_freq", save_freq)
        self.at_most_every = checks.number("at_most_every", at_most_every, 0)
        self.delete_checkpoint = delete_checkpoint
        self.options = json.loads(json.dumps(options or {}))
        self._since = 0

    def on_train_begin(self) -> None:
        """Go on from the checkpoint, if there is one."""
        self._written = time.monotonic()
        if self.path.exists():
            document, arrays = load(self.path)
            check_same(self.options, document.get("options", {}))
            self.model.training_loop.restore(document, arrays)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Write it, if enough steps and seconds have passed."""
        del batch, logs
        self._since += 1
        if self.save_freq != "epoch" and self._since >= self.save_freq:
            self._save()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write it, if enough seconds have passed."""
        del epoch, logs
        if self.save_freq == "epoch" or self._since >= self.save_freq:
            self._save()

    def on_train_end(self) -> None:
        """Remove it."""
        if self.delete_checkpoint:
            self.path.unlink(missing_ok=True)

    def _save(self) -> None:
        if time.monotonic() - self._written < self.at_most_every:
            return
        document, arrays = self.model.training_loop.state()
        save(self.path, {**document, "options": self.options}, arrays)
        self._written, self._since = time.monotonic(), 0
