"""What a model needs of a GPU's memory, from the header of its file: weights, KV cache, compute buffers, overhead.

Everything here is arithmetic: a header and the wish how to load it go in, bytes and a verdict come out. The formulas
are llama.cpp's (the one in llama-cpp-python 0.3.36; the files are named where a formula stands), and
tests/integration/test_forecast.py holds them against what that llama.cpp would allocate.
"""
