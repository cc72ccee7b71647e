"""Jobs as YAML: the schema, the reader, and errors that name file, line and column."""

from __future__ import annotations

from distgrad.config.document import Override
from distgrad.config.errors import ConfigError
from distgrad.config.load import load
from distgrad.config.schema import Config, json_schema

__all__ = ["Config", "ConfigError", "Override", "json_schema", "load"]
