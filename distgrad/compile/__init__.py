"""Functions as programs: ``distgrad.function``."""
