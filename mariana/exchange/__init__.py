"""Models out and in: a C99 header for machines without Python, ONNX in both directions.

``to_c``, ``to_onnx`` and ``from_onnx`` are the ways; the other modules are their parts. The ONNX ones need the extra ``mariana-serve[onnx]``.
"""
