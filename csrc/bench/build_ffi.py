"""Describe the extension module ``mariana._roofs`` to cffi: what ``mariana bench dense`` measures this machine with."""

import runpy
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
core = runpy.run_path(str(HERE.parent / "build_ffi.py"))

ffi = FFI()
ffi.cdef("\n".join(core["CDEF"].findall((HERE / "roofs.h").read_text(encoding="utf-8"))))
ffi.set_source(
    "mariana._roofs",
    '#include "bench/roofs.h"\n',
    sources=["csrc/bench/roofs.c", "csrc/cpu.c"],
    include_dirs=["csrc"],
    depends=["csrc/bench/roofs.h", "csrc/cpu.h", "csrc/unroll.h"],
    extra_compile_args=core["compile_args"](),
    py_limited_api=True,
)
