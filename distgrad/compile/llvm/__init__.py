"""Machine code for CPUs: kernels as LLVM IR, compiled by llvmlite and kept on disk."""
