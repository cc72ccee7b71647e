"""Tensors, variables, primitives and the tape: everything else is built from these."""
