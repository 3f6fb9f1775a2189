"""What pyproject.toml cannot say: the extensions, for every CPython from 3.11 on.

csrc/build_ffi.py builds the core, csrc/bench/build_ffi.py what `mariana bench` uses, both for cffi; csrc/python/ is a
quicker way to call the core, which an interpreter without CPython's limited API does without.
"""

import sys
import sysconfig

from setuptools import Extension, setup

calls = Extension(
    "mariana._calls",
    ["csrc/python/calls.c", "csrc/python/network.c", "csrc/python/reader.c"],
    include_dirs=["csrc"],
    depends=["csrc/python/calls.h", "csrc/mrn.h", "csrc/mrn_format.h"],
    extra_compile_args=[] if sys.platform == "win32" else ["-O3", "-std=c11", "-fvisibility=hidden", "-g0"],
    py_limited_api=True,
)
limited_api = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    cffi_modules=["csrc/build_ffi.py:ffi", "csrc/bench/build_ffi.py:ffi"],
    ext_modules=[calls] if limited_api else [],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
