"""A cage that the server puts itself into once it has loaded: what it can open from then on is the store and little else.

Landlock (Linux 5.13, ``man 7 landlock``) lets a process give up rights for good, without privileges: here all access to
files but reading the store and the program's own, and writing the folders of indexes that may be changed; making TCP
connections and listening sockets (Linux 6.7); signals to, and abstract sockets of, processes outside (6.12). What is open
already stays open: the listening socket, the log, the mapped files. The system calls are made with ctypes, so that nothing
has to be installed.

A thread is restricted with the threads that it starts later. So this is called when the store is loaded and before the
first helper starts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mariana.environment import config_file
from mariana.errors import MarianaError
from mariana.settings import Settings

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls, the same on every architecture."""

_SET_NO_NEW_PRIVS = 38
_VERSION = 1
_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR, MAKE_REG = 1 << 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8
MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = 1 << 9, 1 << 10, 1 << 11, 1 << 12
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15

_SINCE = {2: REFER, 3: TRUNCATE, 5: IOCTL_DEV}
"""Rights that came with a later version of the interface; a kernel refuses those that it does not know."""

_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Rights that a rule for a file may give; the others are for folders."""

READ = READ_FILE | READ_DIR
PROGRAM = READ | EXECUTE
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE

_BIND_TCP, _CONNECT_TCP = 1, 2
_NETWORK_SINCE, _SCOPES_SINCE = 4, 6
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Return the version of the kernel's interface; 0: it has none, or does not offer it."""
    if platform.system() != "Linux":
        return 0
    try:
        return _call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def check(settings: Settings) -> None:
    """Refuse to start without a sandbox that is asked for (MarianaError)."""
    if settings.sandbox == "on" and version() == 0:
        raise MarianaError(
            "MARIANA_SANDBOX is on, but this kernel has no landlock (Linux 5.13 or later, with landlock in its list of "
            "security modules); set it to auto, or off"
        )


def enter(settings: Settings) -> str | None:
    """Restrict this thread, and those that it starts, for good; return in words to what, or None: it was not done.

    Raises:
        MarianaError: the kernel refuses it, or a folder that is to be allowed cannot be opened.
    """
    check(settings)
    found = version()
    if settings.sandbox == "off" or found == 0:
        return None
    known = (1 << 13) - 1
    for since, right in _SINCE.items():
        known |= right if found >= since else 0
    networked = found >= _NETWORK_SINCE and settings.telemetry == "off"  # traces are sent somewhere
    ruleset = _Ruleset(
        known,
        _BIND_TCP | _CONNECT_TCP if networked else 0,
        _ABSTRACT_SOCKETS | _SIGNALS if found >= _SCOPES_SINCE else 0,
    )
    size = 8 if found < _NETWORK_SINCE else 16 if found < _SCOPES_SINCE else 24
    try:
        rules = _call(_CREATE_RULESET, ctypes.byref(ruleset), size, 0)
        try:
            for path, rights in _allowed(settings):
                _allow(rules, path, rights & known)
            _no_new_privileges()
            _call(_RESTRICT_SELF, rules, 0)
        finally:
            os.close(rules)
    except OSError as error:
        raise MarianaError(
            f"cannot enter the sandbox: {error.strerror}; MARIANA_SANDBOX=off does without"
        ) from None
    net = ", no new TCP connections" if networked else ""
    return f"landlock {found}: files of {settings.store} and of the program only{net}"


def _allowed(settings: Settings) -> Iterator[tuple[Path, int]]:
    """Give the paths that may be opened, and for what; those that are not there are left out but for the store."""
    if not settings.store.is_dir():
        raise MarianaError(f"the sandbox needs the store {settings.store} to be there when the server starts")
    yield settings.store, READ
    indexes = settings.store / "indexes"
    if indexes.is_dir():
        yield indexes, WRITE
    models = settings.store / "models"
    if models.is_dir() and (settings.admin_token is not None or settings.admin_tokens_file is not None):
        yield models, WRITE  # its policies
    program = {
        *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *(Path(entry) for entry in sys.path if entry),
        Path(sys.base_prefix) / "lib",
        Path(sys.executable),
        Path(sys.executable).resolve(),
        Path(__file__).resolve().parent,
        *map(Path, _LIBRARIES),
    }
    for path in program:
        if path.exists() and path.resolve() != Path("/"):
            yield path, PROGRAM
    for given, rights in (
        (Path(f"/proc/{os.getpid()}"), READ),  # what /metrics tells of the process
        (Path("/dev/null"), READ_FILE | WRITE_FILE),
        (Path("/dev/urandom"), READ_FILE),
        (Path("/etc/ld.so.cache"), READ_FILE),
        (settings.admin_tokens_file, READ_FILE),
        (config_file(), READ_FILE),
    ):
        if given is not None and given.exists():
            yield given, rights


def _allow(rules: int, path: Path, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        beneath = _Beneath(rights if path.is_dir() else rights & _OF_FILES, descriptor)
        _call(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(beneath), 0)
    finally:
        os.close(descriptor)


def _no_new_privileges() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _call(number: int, *arguments: Any) -> int:
    """Make a system call.

    Raises:
        OSError: it failed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    wide = [ctypes.c_long(given) if isinstance(given, int) else given for given in arguments]
    done = int(libc.syscall(ctypes.c_long(number), *wide))
    if done < 0:
        code = ctypes.get_errno() or errno.EINVAL
        raise OSError(code, os.strerror(code))
    return done
