"""Every primitive there is, for tests that go over all of them."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np

import distgrad.ops
from distgrad.core.primitive import Primitive, Sample, registry


def built_in() -> dict[str, Primitive]:
    """The primitives by name, those of modules that nothing has imported yet among them."""
    for module in pkgutil.walk_packages(distgrad.ops.__path__, "distgrad.ops."):
        importlib.import_module(module.name)
    return dict(sorted(registry.items()))


def samples_of(primitive: Primitive) -> list[Sample]:
    """The samples of a primitive, the same at every call."""
    if primitive.make_samples is None:
        return []
    return list(primitive.make_samples(np.random.default_rng(0)))
