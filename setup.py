"""What pyproject.toml cannot say: csrc/build_ffi.py builds the extension and csrc/bench/build_ffi.py the one that `mariana bench` uses, for every CPython from 3.11 on."""

from setuptools import setup

setup(
    cffi_modules=["csrc/build_ffi.py:ffi", "csrc/bench/build_ffi.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
