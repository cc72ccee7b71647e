"""What the tests over random shapes share."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis.extra import numpy as hnp

quick = settings(max_examples=30)

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
FULL = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4)


def array_of(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)
