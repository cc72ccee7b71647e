"""Bias and activation as one operation, for eager steps: one kernel each way in place of two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distgrad.core.primitive import bind, primitive, registry, sample
from distgrad.core.tape import GradientTape
from distgrad.core.tensor import Tensor
from distgrad.ops.activations import gelu_exact, gelu_exact_grad, relu, relu_grad
from distgrad.ops.arithmetic import add, away_from_zero
from distgrad.ops.reduce import sum_to
from distgrad.ops.trigonometric import tanh, tanh_grad

# By the name of the activation: itself, its gradient, and whether that takes what it gave.
ACTIVATIONS = {
    "relu": (relu, relu_grad, True),
    "tanh": (tanh, tanh_grad, True),
    "gelu_exact": (gelu_exact, gelu_exact_grad, False),
}


def pulled_back(
    parts: Callable[..., Sequence[Tensor]], args: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> list[Any]:
    """The cotangents of ``args`` through ``parts``, which says in operations what a kernel does.

    A rule for the gradient of something that is one kernel: who asks for it is rare.
    """
    # Tensors of its own, so that this tape finds the arguments and nothing before them.
    sources = [bind(registry["identity"], a) for a in args]
    with GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(sources)
        made = list(parts(*sources))
    return tape.gradient(made, sources, list(cotangents))


@primitive(kinds="f")
def biased(xp, x, b, *, activation):
    """An activation of ``x + b``, where ``b`` has the shape of the last axis."""
    return ACTIVATIONS[activation][0].within(xp)(xp.add(x, b))


@biased.vjp("x", "b")
def _(g, out, x, b, activation):
    from_output = ACTIVATIONS[activation][2]
    return bind(biased_grad, g, out if from_output else x, b, activation=activation)


@primitive(kinds="f", multiple=True)
def biased_grad(xp, g, y, b, *, activation):
    """The cotangents of ``x`` and ``b``; ``y`` is the output or ``x``, as the activation asks."""
    _, grad, from_output = ACTIVATIONS[activation]
    dx = grad.within(xp)(g, y if from_output else xp.add(y, b))
    return dx, sum_to.kernel(xp, dx, shape=b.shape)


@biased_grad.vjp("g", "y", "b")
def _(cotangents, args, activation):
    _, grad, from_output = ACTIVATIONS[activation]

    def parts(g, y, b):
        dx = bind(grad, g, y if from_output else bind(add, y, b))
        return dx, bind(sum_to, dx, shape=b._data.shape)

    return pulled_back(parts, args, cotangents)


@biased.samples
def _(rng):
    for activation in ACTIVATIONS:
        b = rng.normal(size=4)
        yield sample(away_from_zero(rng, (2, 3, 4)) - b, b, activation=activation)
    yield sample(rng.normal(size=(0, 4)), rng.normal(size=4), activation="relu")


@biased_grad.samples
def _(rng):
    for activation in ACTIVATIONS:
        g, y = rng.normal(size=(2, 3, 4)), away_from_zero(rng, (2, 3, 4)) / 2
        yield sample(g, y, rng.normal(size=4), activation=activation)
