"""``tf.autodiff``."""

from distgrad.core.forward import ForwardAccumulator
from distgrad.core.tape import GradientTape

__all__ = ["ForwardAccumulator", "GradientTape"]
