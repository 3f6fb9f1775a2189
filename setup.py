"""The one thing pyproject.toml cannot say: the extension is built by csrc/build_ffi.py."""

from setuptools import setup

setup(cffi_modules=["csrc/build_ffi.py:ffi"])
