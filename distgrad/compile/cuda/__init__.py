"""Captured programs on CUDA GPUs: generated kernels, planned memory, and graphs of both."""
