"""Primitives, and ``bind``: the one place through which every operation passes.

A primitive is one block of code: a kernel written over an array namespace ``xp``, the rules of
its vector-Jacobian product written in differentiable operations, and samples for the generic
tests::

    @primitive(expr="tanh(x)", kinds="fc")
    def tanh(xp, x):
        return xp.tanh(x)

    @tanh.vjp("x")
    def _(g, out):
        return g * (1.0 - out * out)

    @tanh.samples
    def _(rng):
        yield sample(rng.normal(size=(3, 4)))

A rule's parameter names say what it needs, and nothing else is kept for it: ``out``, an argument
by its name, ``x_shape`` and ``x_dtype`` for those of argument x, ``args`` and ``shapes`` for all
arguments, ``needs`` for which of them want a gradient, or a static parameter by its name. A
keyword ``place`` says that the rule can write its result to an array, with `bind_at`; a rule for
several arguments is given a list, with None where there is no array.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from distgrad.core import dispatch, dtypes, recording
from distgrad.core.composite import CompositeError, otherwise
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.plan import Plan, make_plan
from distgrad.core.rounding import in_float32
from distgrad.core.tensor import Tensor
from distgrad.core.texts import is_text

registry: dict[str, Primitive] = {}
# Asked once, before the first ``into``: gives primitives their ``native``, where it has one.
fill_native: Callable[[], None] | None = None
_with_bfloat16 = False  # whether kernels may be given arrays of bfloat16


class Sample(NamedTuple):
    """One input of the generic tests; arrays are float64, and are cast where a test asks."""

    args: tuple
    params: dict


def sample(*args: Any, **params: Any) -> Sample:
    """A call of a primitive, for the tests of all primitives."""
    return Sample(args, params)


class Primitive:
    """An operation: callable on tensors, variables, arrays and Python numbers.

    ``kinds`` are the NumPy dtype kinds it accepts (InvalidArgumentError otherwise; with "f" also
    bfloat16, which its kernel is given as float32, unless it ``rounds`` by itself or is a view),
    ``match`` the arguments that must share one dtype (all by default), ``constant`` the arguments
    without a gradient. ``multiple`` says that the kernel returns a tuple, ``view`` that its result
    may share memory with its first argument, ``effect`` that it must run even if nobody uses its
    result, ``host`` that it is any Python code, ``varies`` that the shape of its result depends on
    values, so that no program can have it, ``creates`` that its result is a new array, which
    lies where such arrays are made even if its argument (a key) lies elsewhere, ``also`` another
    keyword for its first argument, where TensorFlow and Keras name it differently.
    """

    def __init__(
        self,
        kernel: Callable[..., Any],
        *,
        expr: str | None = None,
        kinds: str | None = None,
        match: Sequence[str] | None = None,
        constant: Sequence[str] = (),
        multiple: bool = False,
        view: bool = False,
        effect: bool = False,
        host: bool = False,
        varies: bool = False,
        creates: bool = False,
        rounds: bool = False,
        also: str | None = None,
        differentiable: bool = True,
    ) -> None:
        parameters = list(inspect.signature(kernel).parameters.values())[1:]
        self.name = self.__name__ = kernel.__name__
        self.__doc__ = kernel.__doc__
        self.kernel = kernel
        self.expr = expr
        self.kinds = kinds.replace("f", dtypes.FLOATS) if kinds else None
        self.multiple = multiple
        self.view = view
        self.effect = effect
        self.host = host
        self.varies = varies
        self.creates = creates
        self.also = also
        # What only looks at its argument, or is any Python code, takes bfloat16 as it comes.
        self._takes_16_bits = rounds or view or host
        self.differentiable = differentiable
        self.of_texts: Callable[..., Any] | None = None  # the same of arrays of texts, if any
        self.arg_names = tuple(
            p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        )
        reserved = {"out", "args", "shapes", "needs"} & set(self.arg_names)
        if reserved:
            raise TypeError(f"{self.name}: an argument cannot be named {', '.join(reserved)}")
        self.variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "out"]
        self.param_names = tuple(p.name for p in keywords)
        self.defaults = {p.name: p.default for p in keywords if p.default is not p.empty}
        self.constant = tuple(constant)
        self.match = None if match is None else tuple(self.arg_names.index(n) for n in match)
        self.rules: list[tuple[tuple[str, ...], Callable[..., Any]]] = []
        self.make_samples: Callable[[np.random.Generator], Iterator[Sample]] | None = None
        self.plans: dict[Any, Plan | None] = {}  # by the bits of the tracked arguments
        # The dtype kinds of a call that needs no conversion at all, None where one always does.
        simple = not (self.variadic or self.param_names or match is not None)
        self._quick = (self.kinds or "biufcV") if simple and self.arg_names else None
        # How many operands a call has that needs no more than `bind_one` or `bind_pair`, else 0.
        plain = simple and len(self.arg_names) <= 2 and not (multiple or view)
        self._operands = len(self.arg_names) if plain else 0
        self._direct: dict[Any, Any] = {}
        self._writing: dict[Any, Any] = {}  # by namespace, kernels that are given an ``out``
        # A faster ``into`` with the same bits; it says whether it took the arrays.
        self.native: Callable[[tuple, tuple, dict], bool] | None = None
        # The same for several calls, as ``into_each`` is given; it takes all of them, or none.
        self.native_each: Callable[[Sequence[tuple[tuple, tuple]], dict], bool] | None = None
        # The same, bound to these arrays: it takes other numbers in place of those in the calls.
        self.native_bound: Callable[[Sequence[tuple[tuple, tuple]], dict], Any] | None = None
        if _with_bfloat16:
            self.take_bfloat16()
        optional = inspect.Parameter("name", inspect.Parameter.KEYWORD_ONLY, default=None)
        self.__signature__ = inspect.Signature([*parameters, optional])

    def vjp(self, *names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Registers the rule for the named arguments; ``"*"`` stands for all of a variadic one.

        A rule for one argument returns its cotangent; a rule for several (or ``"*"``) returns a
        sequence of them, None where there is none.
        """

        def register(fn: Callable[..., Any]) -> Callable[..., Any]:
            self.rules.append((names, fn))
            return fn

        return register

    def samples(self, fn: Callable[[np.random.Generator], Iterator[Sample]]) -> None:
        self.make_samples = fn

    def __call__(self, *args: Any, name: str | None = None, **params: Any) -> Any:
        quick = self._quick  # without a loop: this is where every call of a user comes by
        if quick is not None and not params:
            if len(args) == 1:
                a = args[0]
                if type(a) is Tensor and a._data.dtype.kind in quick:
                    return bind_one(self, a) if self._operands else bind(self, a)
            elif len(args) == 2:
                a, b = args
                if type(a) is Tensor and type(b) is Tensor:
                    dtype = a._data.dtype
                    if b._data.dtype is dtype and dtype.kind in quick:
                        return bind_pair(self, a, b) if self._operands else bind(self, a, b)
        if len(args) < len(self.arg_names):  # array arguments given by keyword
            if not args and self.also in params:
                args = (params.pop(self.also),)
            rest = self.arg_names[len(args) :]
            args += tuple(params.pop(n) for n in rest if n in params)
        elif len(args) == len(self.arg_names) + 1 and _is_name(args[-1]) and not self.variadic:
            args = args[:-1]
        for given in params:
            if given not in self.param_names:
                raise TypeError(f"{self.name}() got an unexpected keyword argument {given!r}")
        if not self.variadic and len(args) != len(self.arg_names):
            raise TypeError(f"{self.name}() takes {self.arg_names}, got {len(args)} arguments")
        try:
            if self.of_texts is not None and any(map(is_text, args)):
                return self.of_texts(*args)
            tensors = dispatch.convert(self, args)
        except CompositeError:
            return otherwise(self, args, params)
        return bind(self, *tensors, **{**self.defaults, **params})

    def into(self, out: tuple, *args: Any, **params: Any) -> None:
        """Runs the kernel with its results written over the arrays in ``out``.

        Only the training loop does this, for buffers that it owns (donation).
        """
        self.into_each([(out, args)], params)

    def into_each(self, calls: Sequence[tuple[tuple, tuple]], params: dict[str, Any]) -> None:
        """``into`` for several: each its ``out`` and arguments, all with the same numbers among
        these and the same parameters.
        """
        global fill_native
        if fill_native is not None:
            fill, fill_native = fill_native, None
            fill()
        self._refuse_recorders()
        params = {**self.defaults, **params}
        native, at_once = self.native, self.native_each
        if calls and type(calls[0][0][0]) is not np.ndarray:  # of a device
            native, at_once = None, dispatch.backend_of(calls[0][0][0]).each.get(self.name)
        if at_once is not None and at_once(calls, params):
            return
        for out, args in calls:
            if native is None or not native(out, args, params):
                self._kernel_into(dispatch.namespace(out))(*args, out=out, **params)

    def bound(
        self, calls: Sequence[tuple[tuple, tuple]], params: dict[str, Any]
    ) -> Callable[..., None] | None:
        """``into_each`` for arrays that stay: a function of the numbers; None without one.

        On a device it takes losses, too, without which it is to be left out; see `Pending`.
        """
        bind = self.native_bound
        if calls and type(calls[0][0][0]) is not np.ndarray:  # of a device
            bind = dispatch.backend_of(calls[0][0][0]).bound.get(self.name)
        run = None if bind is None else bind(calls, {**self.defaults, **params})
        if run is None:
            return None

        def again(numbers: Sequence[Any], *losses: Any) -> None:
            self._refuse_recorders()
            run(numbers, *losses)

        return again

    def _refuse_recorders(self) -> None:
        if recording.active:
            recording.refuse(
                f"{self.name} writes over arrays with numbers that may change per step"
            )

    def _kernel_into(self, xp: Any) -> Callable[..., Any]:
        """The kernel that writes over arrays of ``xp``."""
        if dispatch.only_namespace is not None:
            return functools.partial(self.kernel, xp)
        if xp not in self._writing:
            own = self._own(dispatch.backend_over(xp))
            kernel = self._guarded(own) if own else functools.partial(self.kernel, xp)
            self._writing[xp] = kernel
        return self._writing[xp]

    def kernel_for(self, xp: Any) -> Callable[..., Any]:
        """The kernel over ``xp``; xp's own function where the kernel does nothing but call it."""
        try:
            return self._direct[xp]
        except KeyError:
            made = self._own(dispatch.backend_over(xp)) if dispatch.only_namespace is None else None
            made = made or self._only_call(xp)
            made = self._guarded(made) if made else functools.partial(self.kernel, xp)
            self._direct[xp] = made
            return made

    def within(self, xp: Any) -> Callable[..., Any]:
        """The kernel over ``xp`` for use in another one: that of a device, or the plain one."""
        on_device = xp is not np and dispatch.backend_over(xp).xp is xp
        return self.kernel_for(xp) if on_device else functools.partial(self.kernel, xp)

    def replace_kernel(self, xp: Any, kernel: Callable[..., Any]) -> None:
        """From now on ``bind`` calls ``kernel`` on arrays of ``xp``; ``self.kernel`` stays."""
        self._direct[xp] = self._guarded(kernel)
        forget_straight()

    def take_bfloat16(self) -> None:
        """From now on its kernels may be given arrays of bfloat16."""
        if self._takes_16_bits:
            return
        self.kernel = in_float32(self.kernel)
        self._writing.clear()
        # (What a device multiplies as it is, is made again, over the new kernel.)
        found = {xp: k for xp, k in self._direct.items() if not hasattr(k, "takes_bfloat16")}
        self._direct = {xp: in_float32(kernel) for xp, kernel in found.items()}

    def _guarded(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """A kernel from elsewhere as one that may be given arrays of bfloat16."""
        as_it_is = self._takes_16_bits or hasattr(kernel, "takes_bfloat16")
        return in_float32(kernel) if _with_bfloat16 and not as_it_is else kernel

    def _own(self, backend: Any) -> Callable[..., Any] | None:
        """The kernel that a backend has of its own for this primitive."""
        plain = functools.partial(self.kernel, backend.xp)
        if self.name in backend.kernels:
            own: Any = functools.partial(backend.kernels[self.name], plain)
            if self.name in backend.take_bfloat16:
                own.takes_bfloat16 = True
            return own
        if self.expr is None or self._only_call(backend.xp) is not None:
            return None
        fused = backend.fused(self.name, self.expr, (*self.arg_names, *self.param_names))
        return None if fused is None else functools.partial(fused, plain)

    def _only_call(self, xp: Any) -> Callable[..., Any] | None:
        """``xp.f`` for a kernel that is ``return xp.f(x, y)``: it saves a Python call."""
        if self.variadic or self.param_names or self.multiple:
            return None
        inputs = tuple(_Operand() for _ in self.arg_names)
        try:
            found = self.kernel(_Probe(), *inputs)
        except (TypeError, AttributeError):  # it does more than call one function
            return None
        if isinstance(found, tuple) and len(found) == 2 and found[1] == inputs:
            return getattr(xp, found[0])
        return None

    def plan(self, mask: int, count: int) -> Plan | None:
        """The plan for the arguments whose bits are set in ``mask``, of ``count``."""
        key = (mask, count) if self.variadic else mask
        try:
            return self.plans[key]
        except KeyError:
            plan = self.plans[key] = make_plan(self, mask, count)
            return plan

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def __reduce__(self) -> str:
        return self.name

    def __deepcopy__(self, memo: dict) -> Primitive:
        return self


def primitive(
    *, vjp: bool | None = True, **options: Any
) -> Callable[[Callable[..., Any]], Primitive]:
    """Makes a kernel into a registered primitive; ``vjp=None`` says that it has no gradient."""

    def make(kernel: Callable[..., Any]) -> Primitive:
        made = Primitive(kernel, differentiable=vjp is not None, **options)
        made.__module__ = kernel.__module__
        if made.name in registry:
            raise ValueError(f"primitive {made.name} is registered already")
        registry[made.name] = made
        return made

    return make


def _take_bfloat16() -> None:
    """Every kernel learns of bfloat16 when that is first used: until then none is slower for it."""
    global _with_bfloat16
    _with_bfloat16 = True
    for known in list(registry.values()):
        known.take_bfloat16()
    forget_straight()


dtypes.when_bfloat16.append(_take_bfloat16)


def forget_straight() -> None:
    """Rules as functions of arrays hold on to kernels: they are to be made anew."""
    for known in list(registry.values()):  # copies: other threads may be making plans
        for plan in list(known.plans.values()):
            if plan is not None:
                plan._straight = None


class _Operand:
    """Stands for an array while a kernel is probed: whatever is done with it fails."""


class _Probe:
    """Stands for an array namespace: a function of it returns its own name and its arguments."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args: (name, args)


def _is_name(value: Any) -> bool:
    """Whether it can be the name of an operation, which TensorFlow takes by position, too."""
    return value is None or type(value) is str


def bind(primitive: Primitive, *args: Any, **params: Any) -> Any:
    """Runs a primitive on tensors and Python numbers, and tells the recorders of this thread."""
    if primitive._operands:
        return (bind_pair if primitive._operands == 2 else bind_one)(primitive, *args)
    data: Any
    if len(args) == 1 and type(args[0]) is Tensor:
        data = (args[0]._data,)
    else:
        data = [a._data if type(a) is Tensor else a for a in args]
    xp = dispatch.only_namespace
    if xp is None:
        xp, data = dispatch.together(primitive.creates, data)
    try:
        kernel = primitive._direct.get(xp) or primitive.kernel_for(xp)
        value = kernel(*data, **params) if params else kernel(*data)
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        raise _explain(primitive, args, params, error) from error
    except (RuntimeError, MemoryError) as error:
        _raise_explained(primitive, error)
    out: Any
    if type(value) is np.ndarray:
        out = Tensor(value)
    elif primitive.multiple:
        arrays = [v if type(v) in dispatch.arrays else xp.asarray(v) for v in value]
        out = tuple([Tensor(array) for array in arrays])
    else:
        out = Tensor(value if type(value) in dispatch.arrays else xp.asarray(value))
    if primitive.view:
        lender = args[0]._lender
        if lender is not None:
            lender._lend(out)
    if recording.active:
        for recorder in recording.per_thread.stack:
            recorder.record(primitive, args, params, out)
    return out


def bind_at(place: Any, primitive: Primitive, *args: Tensor, **params: Any) -> Any:
    """``bind``, its result written to ``place``, an array of its shape and dtype; None is no place.

    Places come from the backward walk, where nobody records, and the kernel must know ``out``. For
    several results there is a list of them, in which some may be None.
    """
    if place is None:
        return bind(primitive, *args, **params)
    made = primitive.kernel_for(np)(*[a._data for a in args], out=place, **params)
    return tuple(map(Tensor, made)) if primitive.multiple else Tensor(place)


def _raise_explained(primitive: Primitive, error: Exception) -> NoReturn:
    """Raises what a device's error means; any other error as it is."""
    known = dispatch.explained(primitive.name, error)
    if known is None:
        raise error
    raise known from error


def bind_pair(primitive: Primitive, a: Any, b: Any) -> Tensor:
    """``bind`` for two operands, no parameters and one new array: the hottest lines of all."""
    x = a._data if type(a) is Tensor else a
    y = b._data if type(b) is Tensor else b
    xp = dispatch.only_namespace
    if xp is None:
        xp, (x, y) = dispatch.together(primitive.creates, (x, y))
    try:
        value = (primitive._direct.get(xp) or primitive.kernel_for(xp))(x, y)
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        raise _explain(primitive, (a, b), {}, error) from error
    except (RuntimeError, MemoryError) as error:
        _raise_explained(primitive, error)
    out = Tensor(value if type(value) in dispatch.arrays else xp.asarray(value))
    if recording.active:
        for recorder in recording.per_thread.stack:
            recorder.record(primitive, (a, b), {}, out)
    return out


def bind_one(primitive: Primitive, a: Any) -> Tensor:
    """``bind`` for one operand, no parameters and one new array."""
    x = a._data if type(a) is Tensor else a
    xp = dispatch.only_namespace
    if xp is None:
        xp, (x,) = dispatch.together(primitive.creates, (x,))
    try:
        value = (primitive._direct.get(xp) or primitive.kernel_for(xp))(x)
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        raise _explain(primitive, (a,), {}, error) from error
    except (RuntimeError, MemoryError) as error:
        _raise_explained(primitive, error)
    out = Tensor(value if type(value) in dispatch.arrays else xp.asarray(value))
    if recording.active:
        for recorder in recording.per_thread.stack:
            recorder.record(primitive, (a,), {}, out)
    return out


def _explain(primitive: Primitive, args: tuple, params: dict, error: Exception) -> Exception:
    if isinstance(error, InvalidArgumentError):
        return error
    operands = ", ".join(
        f"{a.dtype.name}{list(a._data.shape)}" if type(a) is Tensor else repr(a) for a in args
    )
    static = "".join(f", {k}={v!r}" for k, v in params.items())
    return InvalidArgumentError(f"{primitive.name}({operands}{static}): {error}")
