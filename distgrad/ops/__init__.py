"""The operations: one block per primitive, gathered by family."""

from distgrad.ops import operators as operators  # tensors have their operators from here on
from distgrad.ops import variables as variables  # and variables their rows
