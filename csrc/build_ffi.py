"""Describe the extension module ``mariana._kernel`` to cffi.

The declarations are cut out of the public headers, so that they exist once: everything
between a line that starts with ``/* cdef: begin -`` and the next one with ``/* cdef: end -``.
"""

import platform
import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
HEADERS = ("mrn_format.h", "mrn.h")
CDEF = re.compile(r"^/\* cdef: begin -[^\n]*\n(.*?)^/\* cdef: end -", re.MULTILINE | re.DOTALL)


def declarations() -> str:
    """Return the parts of the public headers that cffi reads."""
    parts = [part for name in HEADERS for part in CDEF.findall((HERE / name).read_text(encoding="utf-8"))]
    if not parts:
        raise SystemExit(f"no 'cdef: begin' mark in {', '.join(HEADERS)}")
    return "\n".join(parts)


def sources() -> list[str]:
    """Return the C sources relative to the project, as setuptools wants them."""
    found = [*HERE.glob("*.c"), *HERE.glob("x86/*.c"), *HERE.glob("arm/*.c")]
    return sorted(str(path.relative_to(HERE.parent)) for path in found)


def compile_args() -> list[str]:
    """Return the flags for gcc and clang; instruction sets are chosen function by function, not here."""
    flags = ["-O3", "-std=c11", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-g0"]
    if platform.machine() == "s390x":  # where C11 would have float sums rounded to double
        flags.append("-fexcess-precision=fast")
    return [] if platform.system() == "Windows" else flags


ffi = FFI()
ffi.cdef(declarations())
ffi.set_source(
    "mariana._kernel",
    '#include "mrn_format.h"\n#include "mrn.h"\n',
    sources=sources(),
    include_dirs=["csrc"],
    depends=sorted(str(path.relative_to(HERE.parent)) for path in HERE.glob("**/*.[hd]*") if path.is_file()),
    extra_compile_args=compile_args(),
    py_limited_api=True,
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
