"""Attention: two products with a softmax between them, and their gradients, as one operation each.

As models write it, a matrix of every query beside every key is written and read several times over.
A mask counts that is the same at every run and leaves no query without a key, and so does a bias
without a gradient. Transposes, and a scale, are looked through.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from distgrad.compile.passes.dead import drop_dead
from distgrad.compile.program import Apply, Instruction, Program, Value
from distgrad.ops.attention import attention, attention_grad
from distgrad.ops.shape import permute

_MASKED = -1e4  # such scores count for nothing, in half precision too
_LOWEST = -3e4  # one of them


class Takes(Protocol):
    """Whether attention is to be one operation; ``bias`` is a value, or the number 0."""

    def __call__(
        self, q: Value, k: Value, v: Value, bias: Any, *, scale: float, causal: bool, trained: bool
    ) -> bool: ...


def attentive(program: Program, takes: Takes) -> Program:
    """The program with ``attention`` and ``attention_grad`` where ``takes`` wants them."""
    chains = _Chains(program)
    replaced: dict[Instruction, list[Instruction]] = {}
    for instruction in program.instructions:
        if isinstance(instruction, Apply) and instruction.name == "softmax_along":
            try:
                replaced.update(chains.around(instruction, takes))
            except _OtherwiseUsed:
                continue
    if not replaced:
        return program
    made = [m for i in program.instructions for m in replaced.get(i, [i])]
    return drop_dead(program.with_(made)).verify()


class _OtherwiseUsed(Exception):
    """It is no such chain, or somebody else looks into it."""


def _unless(right: bool) -> None:
    if not right:
        raise _OtherwiseUsed


class _Matrix(NamedTuple):
    """A value, or its transpose."""

    value: Value
    turned: bool

    def other(self) -> _Matrix:
        """The transpose."""
        return _Matrix(self.value, not self.turned)

    def written(self, line: str) -> tuple[Value, list[Instruction]]:
        """The matrix as a value, and what makes it."""
        if not self.turned:
            return self.value, []
        *batch, rows, columns = self.value.shape
        out = Value((*batch, columns, rows), self.value.dtype)
        return out, [_turn(self.value, out, line)]


class _Scores(NamedTuple):
    """``scale * left @ transpose(right) + bias``, masked; and the product in it."""

    left: _Matrix
    right: _Matrix
    scale: float
    bias: Any
    masks: list[np.ndarray]
    dot: Apply


class _Use(NamedTuple):
    """A product of ``scale`` times a matrix, or its transpose if ``flipped``, and ``right``.

    If ``turned``, it is the transpose of what ``dot`` makes.
    """

    flipped: bool
    right: _Matrix
    scale: float
    turned: bool
    dot: Apply

    def made_by(self, like: Value, line: str) -> tuple[Value, list[Instruction]]:
        """What is to hold the product, in the shape of ``like``, and what follows on that."""
        (out,) = self.dot.outputs
        if not self.turned:
            return out, []
        made = Value(like.shape, like.dtype)
        return made, [_turn(made, out, line)]


class _Chains:
    def __init__(self, program: Program) -> None:
        self._at = {instruction: i for i, instruction in enumerate(program.instructions)}
        self._maker: dict[Value, Instruction] = {}
        self._users: dict[Value, list[Instruction]] = {}
        for instruction in program.instructions:
            self._maker.update(dict.fromkeys(instruction.outputs, instruction))
            for value in set(instruction.values):
                self._users.setdefault(value, []).append(instruction)
        self._kept = set(program.outputs)
        self._known: dict[Value, np.ndarray] = {}  # constants that are made anew at each run

    def around(self, softmax: Apply, takes: Takes) -> dict[Instruction, list[Instruction]]:
        """What the instructions of a chain become. Raises _OtherwiseUsed."""
        (x,), (weights,) = softmax.inputs, softmax.outputs
        _unless(type(x) is Value and softmax.params["axis"] == len(x.shape) - 1)
        gone: list[Instruction] = [softmax]
        scores = self._scores(x, gone, _MASKED)
        uses, gradients = self._uses(weights, scores.masks, gone)
        average = _only(use for use in uses if not use.flipped and use.scale == 1)
        _unless(len(uses) == 1 + len(gradients) <= 2)
        line = average.dot.line
        written = [m.written(line) for m in (scores.left, scores.right, average.right)]
        arrays, views = [value for value, _ in written], [i for _, made in written for i in made]
        causal, bias = _masked(scores, x)
        params: dict[str, Any] = {"scale": scores.scale, "causal": causal}
        q, k, v = arrays
        _unless(takes(q, k, v, bias, **params, trained=bool(gradients)))
        o, after = average.made_by(Value((*q.shape[:-1], v.shape[-1]), q.dtype), line)
        stats = Value((*q.shape[:-1], 1), np.promote_types(q.dtype, np.float32))
        whole = Apply((*arrays, bias), (o, stats), primitive=attention, params=params, line=line)
        replaced: dict[Instruction, list[Instruction]] = {average.dot: [*views, whole, *after]}
        if gradients:
            dy, places = self._backward(gradients[0], scores, average.right, uses, gone)
            dots = [i for i in gone if _named(i, "dot") and self._at[i] > self._at[average.dot]]
            first = min(dots, key=self._at.__getitem__)
            given, made = dy.written(first.line)
            ends = [use.made_by(a, first.line) for use, a in zip(places, arrays, strict=True)]
            gradient = Apply(
                (given, *arrays, o, stats, bias),
                tuple(value for value, _ in ends),
                primitive=attention_grad,
                params=params,
                line=first.line,
            )
            replaced[first] = [*made, gradient, *(i for _, after in ends for i in after)]
        return {**{instruction: [] for instruction in gone}, **replaced}

    def _backward(
        self,
        softmax_grad: Apply,
        scores: _Scores,
        v: _Matrix,
        uses: list[_Use],
        gone: list[Instruction],
    ) -> tuple[_Matrix, list[_Use]]:
        """The gradient that comes, and the products that are those of q, k and v."""
        given, out = softmax_grad.inputs[0], softmax_grad.outputs[0]
        gone.append(softmax_grad)
        inner = self._scores(given, gone, 0.0)
        dy = inner.left
        _unless(inner.right == v and inner.scale == 1 and type(inner.bias) is not Value)
        _unless(all(_among(mask, scores.masks) for mask in inner.masks))
        dv = _only(use for use in uses if use.flipped and use.scale == 1 and use.right == dy)
        others, more = self._uses(out, scores.masks, gone)
        _unless(len(others) == 2 and not more and {u.scale for u in others} == {scores.scale})
        dq = _only(use for use in others if not use.flipped and use.right == scores.right)
        dk = _only(use for use in others if use.flipped and use.right == scores.left)
        return dy, [dq, dk, dv]

    def _scores(self, value: Any, gone: list[Instruction], low: float) -> _Scores:
        """What a value is a product of; masks put ``low`` or less in the places left out."""
        turned, scale = False, 1.0
        bias: Any = 0.0
        masks: list[np.ndarray] = []
        while True:
            maker = self._maker.get(value)
            _unless(isinstance(maker, Apply) and value not in self._kept)
            _unless(len(self._users[value]) == 1)
            assert isinstance(maker, Apply)
            gone.append(maker)
            plain = not turned and scale == 1
            if maker.name == "dot":
                left, right = _sides(maker)
                if turned:  # transpose(a @ b) is transpose(b) @ transpose(a)
                    left, right = right.other(), left.other()
                return _Scores(left, right.other(), scale, bias, masks, maker)
            if maker.name == "select" and plain and type(bias) is not Value:
                condition, value, other = maker.inputs
                number = _number(other)
                _unless(number is not None and number <= low)
                masks.append(self._constant(condition))
            elif maker.name == "add" and plain and type(bias) is not Value:
                value, bias = _added(maker)
            elif (scaled := _scaled(maker)) is not None:
                value, scale = scaled[0], scale * scaled[1]
            elif _turns(maker):
                turned, (value,) = not turned, maker.inputs
            else:
                raise _OtherwiseUsed

    def _uses(
        self,
        value: Value,
        masks: list[np.ndarray],
        gone: list[Instruction],
        turned: bool = False,
        scale: float = 1.0,
    ) -> tuple[list[_Use], list[Apply]]:
        """The products that a matrix is a factor of, and the gradients of the softmax it is of."""
        _unless(value not in self._kept)
        uses: list[_Use] = []
        gradients: list[Apply] = []
        for user in self._users.get(value, []):
            _unless(isinstance(user, Apply))
            assert isinstance(user, Apply)
            position = user.inputs.index(value)
            further: tuple[bool, float] | None = None
            if user.name == "dot":
                _unless(user.inputs[0] is not user.inputs[1])
                left, right = _sides(user)
                flipped = (left, right)[position].turned != turned
                other = right if position == 0 else left.other()
                uses.append(_Use(flipped != bool(position), other, scale, position == 1, user))
            elif user.name == "softmax_grad" and position == 1 and not turned and scale == 1:
                gradients.append(user)
                continue
            elif user.name == "select" and position == 1 and _number(user.inputs[2]) == 0:
                _unless(not turned and _among(self._constant(user.inputs[0]), masks))
                further = turned, scale
            elif (scaled := _scaled(user)) is not None:
                further = turned, scale * scaled[1]
            elif _turns(user):
                further = not turned, scale
            else:
                raise _OtherwiseUsed
            gone.append(user)
            if further is not None:
                more = self._uses(user.outputs[0], masks, gone, *further)
                uses, gradients = uses + more[0], gradients + more[1]
        return uses, gradients

    def _constant(self, value: Any) -> np.ndarray:
        """A value that is the same at every run, also one that is too large to be kept."""
        _unless(type(value) is Value)
        if value.constant:
            return np.asarray(value.data)
        if value not in self._known:
            maker = self._maker.get(value)
            _unless(isinstance(maker, Apply) and len(maker.outputs) == 1 and not maker.effect)
            assert isinstance(maker, Apply)
            given = [self._constant(v) if type(v) is Value else v for v in maker.inputs]
            self._known[value] = np.asarray(maker.primitive.kernel(np, *given, **maker.params))
        return self._known[value]


def _masked(scores: _Scores, x: Value) -> tuple[bool, Any]:
    """Whether no key after a query counts, and the bias; another mask is one, too."""
    shape = x.shape[-2:]
    mask = np.ones(shape, bool)
    for one in scores.masks:
        _unless(all(n == 1 for n in one.shape[:-2]))
        mask = mask & one.reshape((1, 1, *one.shape)[-2:])
    if mask.all():
        return False, scores.bias
    if np.array_equal(mask, np.tri(*shape, dtype=bool)):
        return True, scores.bias
    _unless(bool(mask.any(axis=-1).all()) and type(scores.bias) is not Value)
    data = np.where(mask, 0, _LOWEST).astype(x.dtype)
    return False, Value(data.shape, data.dtype, data)


def _sides(dot: Apply) -> tuple[_Matrix, _Matrix]:
    """The factors of a product of as many matrices each."""
    a, b = dot.inputs
    _unless(type(a) is Value and type(b) is Value and a.shape[:-2] == b.shape[:-2])
    return _Matrix(a, dot.params["transpose_a"]), _Matrix(b, dot.params["transpose_b"])


def _turns(apply: Apply) -> bool:
    """Whether it swaps the last two axes, and nothing else."""
    if apply.name != "permute":
        return False
    perm = tuple(apply.params["perm"])
    n = len(perm)
    return n >= 2 and perm == (*range(n - 2), n - 1, n - 2)


def _turn(value: Value, out: Value, line: str) -> Apply:
    n = len(value.shape)
    params = {"perm": (*range(n - 2), n - 1, n - 2)}
    return Apply((value,), (out,), primitive=permute, params=params, line=line)


def _scaled(apply: Apply) -> tuple[Value, float] | None:
    """The value that is multiplied with a number, and the number."""
    if apply.name not in ("multiply", "divide_exact"):
        return None
    x, y = apply.inputs
    if apply.name == "multiply" and _number(x) is not None:
        x, y = y, x
    number = _number(y)
    if number is None or type(x) is not Value:
        return None
    return x, number if apply.name == "multiply" else 1 / number


def _number(value: Any) -> float | None:
    if type(value) is Value and value.constant and not value.shape:
        return float(value.data)
    return float(value) if isinstance(value, (int, float)) else None


def _added(add: Apply) -> tuple[Value, Value]:
    """Scores, and the bias that is added to them."""
    x, y = add.inputs
    _unless(type(x) is Value and type(y) is Value)
    return (x, y) if x.shape == add.outputs[0].shape else (y, x)


def _among(mask: np.ndarray, masks: list[np.ndarray]) -> bool:
    return any(mask is one or np.array_equal(mask, one) for one in masks)


def _only(found: Any) -> Any:
    """The one thing that there is."""
    all_of_them = list(found)
    _unless(len(all_of_them) == 1)
    return all_of_them[0]


def _named(instruction: Instruction, name: str) -> bool:
    return isinstance(instruction, Apply) and instruction.name == name
