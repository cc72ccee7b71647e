"""Array libraries under the primitives: NumPy on CPUs, others beside it."""
