"""What editors know of job files: the JSON Schema, with the texts that stand below the keys.

Pydantic would read those texts from the source in every process that reads a job, 25 ms each.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

from distgrad.config import constructors
from distgrad.config.schema import Config
from distgrad.config.sources import Section


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a job file, for editors: layer keys come from the constructors."""
    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    for cls in _sections(Section):
        part = schema if cls is Config else definitions.get(cls.__name__, {})
        keys = part.get("properties", {})
        for key in keys:
            if words := _description(cls, key):
                keys[key] = dict(sorted({**keys[key], "description": words}.items()))
    for kind in ("layer", "loss", "metric", "optimizer", *constructors.INNER):
        definitions[kind.capitalize()] = constructors.schema(kind)
    loss, metrics = schema["properties"]["loss"], schema["properties"]["metrics"]
    # Other spellings, such as the name of the class, are right, too.
    names = {kind: {"enum": constructors.names(kind)} for kind in ("loss", "metric")}
    text = {"type": "string"}
    loss["anyOf"] = [names["loss"], text, {"$ref": "#/$defs/Loss"}, {"type": "null"}]
    metrics["items"] = {"anyOf": [names["metric"], text, {"$ref": "#/$defs/Metric"}]}
    schema["properties"]["base"] = {
        "type": "string",
        "description": "Another job file, from this file's folder, that this one changes.",
    }
    # A job with a base may leave out what the base has.
    schema["anyOf"] = [{"required": schema.pop("required")}, {"required": ["base"]}]
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema}


def _sections(cls: type[Section]) -> Iterator[type[Section]]:
    yield cls
    for below in cls.__subclasses__():
        yield from _sections(below)


def _description(cls: type, key: str) -> str | None:
    """The text below a key of a section, or of the one that it is made from."""
    texts = (_texts(base.__module__).get(base.__name__, {}) for base in cls.__mro__[:-1])
    return next((found[key] for found in texts if key in found), None)


@cache
def _texts(module: str) -> dict[str, dict[str, str]]:
    """The texts below the attributes of each class of a module of ours."""
    if not module.startswith(f"{__package__}."):
        return {}
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(node, ast.ClassDef):
            for one, after in pairwise(node.body):
                if isinstance(one, ast.AnnAssign) and isinstance(after, ast.Expr):
                    key, text = ast.unparse(one.target), ast.literal_eval(after.value)
                    found.setdefault(node.name, {})[key] = inspect.cleandoc(text)
    return found
