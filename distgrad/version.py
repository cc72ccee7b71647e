"""``tf.version``: what scripts print first. It is distgrad's version, not TensorFlow's."""

from distgrad import __version__ as VERSION

__all__ = ["VERSION"]
