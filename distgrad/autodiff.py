"""``tf.autodiff``."""

from distgrad.core.forward import ForwardAccumulator

__all__ = ["ForwardAccumulator"]
