"""Models out and in: a C99 header for machines without Python, ONNX in both directions.

Each module is one way: ``to_c``, ``to_onnx``, ``from_onnx``. The ONNX ones need the extra ``mariana-serve[onnx]``.
"""
