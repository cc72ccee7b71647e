"""``tf.version``: what scripts print first. It is distgrad's version, not TensorFlow's."""

import platform as _platform

from distgrad import __version__ as VERSION

__all__ = ["COMPILER_VERSION", "GIT_VERSION", "VERSION"]

GIT_VERSION = "unknown"  # as TensorFlow has it of what was built from no repository
COMPILER_VERSION = _platform.python_compiler()
