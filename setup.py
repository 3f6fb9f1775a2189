"""What pyproject.toml cannot say: csrc/build_ffi.py builds the extension, for every CPython from 3.11 on."""

from setuptools import setup

setup(
    cffi_modules=["csrc/build_ffi.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
