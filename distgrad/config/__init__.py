"""Jobs as YAML: the schema, the reader, and errors that name file, line and column."""

from __future__ import annotations

from distgrad.config.document import Override
from distgrad.config.errors import ConfigError
from distgrad.config.load import load
from distgrad.config.schema import Config

# This package is also what ``tf.config`` finds once it was imported.
from distgrad.settings import *  # noqa: F403

__all__ = ["Config", "ConfigError", "Override", "load"]
