"""A dense layer as one operation each way, for eager steps: product, bias and activation."""

from __future__ import annotations

from typing import Any

from distgrad.core.primitive import bind, bind_at, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import add
from distgrad.ops.biased import ACTIVATIONS, biased, biased_grad, pulled_back
from distgrad.ops.linalg import dot
from distgrad.ops.reduce import sum_to

# Those whose gradient is one of what they gave; "" is none, and the others would have to keep more.
IN_ONE = ("", *(name for name, (_, _, from_output) in ACTIVATIONS.items() if from_output))


@primitive(kinds="f")
def dense(xp, x, w, b, *, activation):
    """An activation of ``x @ w + b``, for matrices and a row ``b``."""
    y = dot.kernel_for(xp)(x, w, transpose_a=False, transpose_b=False)
    if not activation:
        return add.kernel_for(xp)(y, b)
    return biased.kernel_for(xp)(y, b, activation=activation)


@dense.vjp("x", "w", "b")
def _(g, out, x, w, b, needs, activation, *, place=None):
    if all(needs[1:]):
        place = place and place[not needs[0] :]
        made = bind_at(
            place, dense_grad, g, out, x, w, b, activation=activation, all_three=needs[0]
        )
        return made if needs[0] else (None, *made)
    dz = bind(ACTIVATIONS[activation][1], g, out) if activation else g
    return (
        _times(dz, w, transpose_b=True) if needs[0] else None,
        _times(x, dz, transpose_a=True) if needs[1] else None,
        bind(sum_to, dz, shape=b._data.shape) if needs[2] else None,
    )


def _times(a: Tensor, b: Tensor, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    return bind(dot, a, b, transpose_a=transpose_a, transpose_b=transpose_b)


@primitive(kinds="f", multiple=True)
def dense_grad(xp, g, y, x, w, b, *, activation, all_three, out=None):
    """The cotangents of ``x`` (with ``all_three``), ``w`` and ``b``; ``y`` is the output.

    Those that have an array in ``out`` are written to it.
    """
    *of_x, of_w, of_b = out or (None,) * (2 + all_three)
    if activation:
        dz, db = biased_grad.kernel_for(xp)(g, y, b, activation=activation)
    else:
        dz, db = g, sum_to.kernel_for(xp)(g, shape=b.shape)
    if of_b is not None:
        of_b[...] = db
        db = of_b
    product = dot.kernel_for(xp)
    dw = product(x, dz, transpose_a=True, transpose_b=False, out=of_w)
    if not all_three:
        return dw, db
    return product(dz, w, transpose_a=False, transpose_b=True, out=of_x[0]), dw, db


@dense_grad.vjp("g", "y", "x", "w", "b")
def _(cotangents, args, activation, all_three):
    def parts(g: Any, y: Any, x: Any, w: Any, b: Any) -> list[Tensor]:
        dz = bind(ACTIVATIONS[activation][1], g, y) if activation else g
        made = [_times(dz, w, transpose_b=True)] if all_three else []
        return [*made, _times(x, dz, transpose_a=True), bind(sum_to, dz, shape=b._data.shape)]

    return pulled_back(parts, args, cotangents)


@dense.samples
def _(rng):
    for activation in IN_ONE:
        x, w = rng.normal(size=(3, 4)), rng.normal(size=(4, 2))
        signs = rng.choice([-1.0, 1.0], 2)  # so that no output is near the edge of relu
        yield sample(x, w, 30 * signs if activation == "relu" else signs, activation=activation)
    yield sample(
        rng.normal(size=(0, 4)), rng.normal(size=(4, 2)), rng.normal(size=2), activation=""
    )


@dense_grad.samples
def _(rng):
    for activation in IN_ONE:
        g, y = rng.normal(size=(3, 2)), rng.choice([-0.5, 0.5], (3, 2))
        rest = rng.normal(size=(3, 4)), rng.normal(size=(4, 2)), rng.normal(size=2)
        for all_three in (False, True):
            yield sample(g, y, *rest, activation=activation, all_three=all_three)
