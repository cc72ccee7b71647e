"""Long short-term memory for eager steps: a cell, or all steps of a sequence, as one operation.

What takes a step microseconds of Python and a kernel each way takes a sequence once.
"""

from __future__ import annotations

from typing import Any

from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import add_n
from distgrad.ops.biased import pulled_back
from distgrad.ops.casting import zeros_like
from distgrad.ops.exponential import sigmoid, sigmoid_grad
from distgrad.ops.linalg import dot
from distgrad.ops.shape import concat, split, stack, unstack
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


@primitive(kinds="f", multiple=True)
def lstm_steps(xp, x, kernel, h, c):
    """All outputs, carries and gates, before their activations: ``[time, batch, ...]`` each.

    ``x [time, batch, 4 * units]`` are the inputs times their kernel, with the bias; ``kernel`` is
    the recurrent one, and ``h`` and ``c`` are the states before the first step.
    """
    made = []
    for given in x:
        z = xp.add(given, _product(xp, h, kernel))
        h, c = lstm_cell.kernel_for(xp)(z, c)
        made.append((h, c, z))
    return tuple([xp.stack(parts) for parts in zip(*made, strict=True)])


def _product(xp: Any, a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    return dot.kernel_for(xp)(a, b, transpose_a=transpose_a, transpose_b=transpose_b)


@lstm_steps.vjp("x", "kernel", "h", "c")
def _(g, kernel, h, c, out):
    return bind(lstm_steps_grad, *g, kernel, h, c, *out)


@primitive(kinds="f", multiple=True)
def lstm_steps_grad(xp, dhs, dcs, dzs, kernel, h, c, hs, cs, zs):
    """The cotangents of what `lstm_steps` takes, for those of what it gives."""
    dx, dh, dc, dkernel = xp.empty_like(zs), dhs[-1], dcs[-1], None
    for t in reversed(range(len(zs))):
        before, carry = (hs[t - 1], cs[t - 1]) if t else (h, c)
        dz, dc = lstm_cell_grad.kernel_for(xp)(dh, dc, zs[t], carry)
        dz = dx[t] = xp.add(dz, dzs[t])
        dh = _product(xp, dz, kernel, transpose_b=True)
        term = _product(xp, before, dz, transpose_a=True)
        dkernel = term if dkernel is None else xp.add(dkernel, term)
        if t:
            dh, dc = xp.add(dhs[t - 1], dh), xp.add(dcs[t - 1], dc)
    return dx, dkernel, dh, dc


@lstm_steps_grad.vjp("dhs", "dcs", "dzs", "kernel", "h", "c", "hs", "cs", "zs")
def _(cotangents, args):
    return pulled_back(_steps_grad_in_parts, args, cotangents)


def _steps_grad_in_parts(
    dhs: Tensor,
    dcs: Tensor,
    dzs: Tensor,
    kernel: Tensor,
    h: Tensor,
    c: Tensor,
    hs: Tensor,
    cs: Tensor,
    zs: Tensor,
) -> tuple[Tensor, ...]:
    given = [unstack(each) for each in (dhs, dcs, dzs, zs)]
    outputs, carries = ([first, *unstack(each)] for first, each in ((h, hs), (c, cs)))
    steps = list(zip(*given, outputs[:-1], carries[:-1], strict=True))
    dx, dkernel = [], []
    dh, dc = zeros_like(h), zeros_like(c)
    for of_h, of_c, of_z, z, before, carry in reversed(steps):
        dh, dc = of_h + dh, of_c + dc
        dz, dc = bind(lstm_cell_grad, dh, dc, z, carry)
        dz = dz + of_z
        dh = bind(dot, dz, kernel, transpose_a=False, transpose_b=True)
        dx.append(dz)
        dkernel.append(bind(dot, before, dz, transpose_a=True, transpose_b=False))
    return stack(dx[::-1]), add_n(dkernel), dh, dc


@lstm_cell.samples
def _(rng):
    yield sample(rng.normal(size=(3, 8)), rng.normal(size=(3, 2)))


@lstm_cell_grad.samples
def _(rng):
    given = [rng.normal(size=(3, n)) for n in (2, 2, 8, 2)]
    yield sample(*given)


@lstm_steps.samples
def _(rng):
    yield sample(*[rng.normal(size=size) for size in ((3, 2, 8), (2, 8), (2, 2), (2, 2))])


@lstm_steps_grad.samples
def _(rng):
    states, gates = (3, 2, 2), (3, 2, 8)
    sizes = states, states, gates, (2, 8), (2, 2), (2, 2), states, states, gates
    yield sample(*[rng.normal(size=size) for size in sizes])
