"""The exceptions that Mariana raises on purpose.

::

    MarianaError
    ├── InvalidInputError   (ValueError)   what the caller gave has the wrong shape, type or value
    │   └── OutOfRangeError                right shape and type, but a value that is not allowed
    ├── NotFoundError       (LookupError)  no such model, version, index or entry
    ├── FileFormatError     (ValueError)   a file is damaged, newer than we know, or inconsistent
    ├── StoreError          (OSError)      the store cannot be read or written
    ├── TrainingError       (ArithmeticError) training diverged: the loss or a weight is no longer finite
    └── KernelError         (RuntimeError) the C core refused; carries its status

Every message says what was wrong, what was found and what to do, in one line.
"""

from __future__ import annotations

from collections.abc import Sequence


class MarianaError(Exception):
    """The base of all exceptions that Mariana raises on purpose."""


class InvalidInputError(MarianaError, ValueError):
    """What the caller gave has the wrong shape, type or value.

    Attributes:
        pointer: where in the input, as a JSON pointer (RFC 6901); empty for the whole.
        faults: all that was found wrong, as (pointer, message), where more than one thing is looked for; the first
            one is what the message says.
    """

    def __init__(self, message: str, *, pointer: str = "", faults: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.pointer = pointer
        self.faults = tuple(faults)


class OutOfRangeError(InvalidInputError):
    """The input has the right shape and type, but a value that is not allowed."""


class NotFoundError(MarianaError, LookupError):
    """There is no such model, version, index or entry."""


class FileFormatError(MarianaError, ValueError):
    """A file is damaged, newer than this version knows, or inconsistent; the message names it."""


class StoreError(MarianaError, OSError):
    """The store cannot be read or written."""


class TrainingError(MarianaError, ArithmeticError):
    """Training diverged: the loss or a weight is no longer finite; the message names epoch and step."""


class KernelError(MarianaError, RuntimeError):
    """The C core refused a call.

    Attributes:
        status: the name of the status, as in ``csrc/status.def``.
    """

    def __init__(self, message: str, *, status: str) -> None:
        super().__init__(message)
        self.status = status
