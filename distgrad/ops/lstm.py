"""The cell of long short-term memory as one operation, for eager steps: a kernel each way."""

from __future__ import annotations

from typing import Any

from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.biased import pulled_back
from distgrad.ops.exponential import sigmoid, sigmoid_grad
from distgrad.ops.shape import concat, split
from distgrad.ops.trigonometric import tanh, tanh_grad


@primitive(kinds="f", multiple=True)
def lstm_cell(xp, z, c):
    """The new output and carry, from gates ``z [batch, 4 * units]`` and the old carry.

    The gates are input, forget, candidate and output, before their activations.
    """
    i, f, o, candidate = _gates(xp, z)
    c = xp.add(xp.multiply(f, c), xp.multiply(i, candidate))
    return xp.multiply(o, xp.tanh(c)), c


def _gates(xp: Any, z: Any) -> tuple[Any, Any, Any, Any]:
    """The input, forget and output gate, and the candidate."""
    units = z.shape[1] // 4
    i, f, g, o = (z[:, n * units : (n + 1) * units] for n in range(4))
    i, f, o = map(sigmoid.within(xp), (i, f, o))
    return i, f, o, xp.tanh(g)


@lstm_cell.vjp("z", "c")
def _(g, args):
    return bind(lstm_cell_grad, *g, *args)


@primitive(kinds="f", multiple=True)
def lstm_cell_grad(xp, dh, dc, z, c):
    """The cotangents of ``z`` and ``c`` for those of the output and the new carry."""
    i, f, o, candidate = _gates(xp, z)
    t = xp.tanh(xp.add(xp.multiply(f, c), xp.multiply(i, candidate)))
    of_tanh, of_sigmoid = tanh_grad.within(xp), sigmoid_grad.within(xp)
    dc = xp.add(dc, of_tanh(xp.multiply(dh, o), t))
    parts = (
        of_sigmoid(xp.multiply(dc, candidate), i),
        of_sigmoid(xp.multiply(dc, c), f),
        of_tanh(xp.multiply(dc, i), candidate),
        of_sigmoid(xp.multiply(dh, t), o),
    )
    return xp.concatenate(parts, axis=1), xp.multiply(dc, f)


@lstm_cell_grad.vjp("dh", "dc", "z", "c")
def _(cotangents, args):
    return pulled_back(_grad_in_parts, args, cotangents)


def _grad_in_parts(dh: Tensor, dc: Tensor, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, candidate, o = split(z, 4, axis=1)
    i, f, candidate, o = sigmoid(i), sigmoid(f), tanh(candidate), sigmoid(o)
    t = tanh(f * c + i * candidate)
    dc = dc + bind(tanh_grad, dh * o, t)
    parts = [
        bind(sigmoid_grad, dc * candidate, i),
        bind(sigmoid_grad, dc * c, f),
        bind(tanh_grad, dc * i, candidate),
        bind(sigmoid_grad, dh * t, o),
    ]
    return concat(parts, 1), dc * f


@lstm_cell.samples
def _(rng):
    yield sample(rng.normal(size=(3, 8)), rng.normal(size=(3, 2)))


@lstm_cell_grad.samples
def _(rng):
    given = [rng.normal(size=(3, n)) for n in (2, 2, 8, 2)]
    yield sample(*given)
