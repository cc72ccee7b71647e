"""Kernels and rules know no array library: what they call, NumPy, CuPy and the standard have.

There are three checks: the source of every kernel and rule is read; every sample, with its first
and second derivative, runs on a stand-in that refuses what CuPy refuses; and what keeps to the
Python array API standard runs on its strict implementation.
"""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path

import array_api_strict
import numpy as np
import pytest

import distgrad as tf
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.testing import standin
from distgrad.testing.primitives import built_in, samples_of

PRIMITIVES = built_in()
ROOT = Path(tf.__path__[0])
SOURCES = sorted((ROOT / "ops").glob("*.py")) + sorted((ROOT / "core").glob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}

STANDARD = {name for name in dir(array_api_strict) if not name.startswith("_")}
STANDARD |= {f"linalg.{n}" for n in dir(array_api_strict.linalg) if not n.startswith("_")}
STANDARD |= {"linalg"}

# What a kernel may have of NumPy itself: dtypes, numbers, and what looks at shapes and dtypes.
NUMPY_OF_THE_HOST = {
    "bool_", "dtype", "finfo", "iinfo", "inf", "int32", "int64", "nan", "ndindex", "pi",
    "float32", "float64", "uint64",
}  # fmt: skip
# Functions that make small tables of weights from sizes alone, on the host; they see no array.
TABLES_FROM_SIZES = {"interpolate", "_members"}


def takes_xp(node: ast.AST) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.Lambda)) and any(
        argument.arg == "xp" for argument in node.args.args
    )


def kernels() -> Iterator[tuple[Path, ast.AST]]:
    """Every function that is given an array namespace."""
    for path, tree in TREES.items():
        if path.name != "primitive.py":
            yield from ((path, node) for node in ast.walk(tree) if takes_xp(node))


def rules() -> Iterator[tuple[Path, ast.FunctionDef]]:
    """Every function under ``@some_primitive.vjp(...)``."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith(".vjp"):
                        yield path, node


def dotted(node: ast.AST) -> tuple[str, str]:
    """("xp", "linalg.inv") for ``xp.linalg.inv``; ("", ...) where it is no name with dots."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id if isinstance(node, ast.Name) else ""), ".".join(reversed(parts))


def used(function: ast.AST, base: str) -> set[str]:
    found = {dotted(n) for n in ast.walk(function) if isinstance(n, ast.Attribute)}
    names = {name for root, name in found if root == base}
    # ``xp.linalg`` is part of ``xp.linalg.inv``, which is looked at as a whole.
    return {n for n in names if not any(other.startswith(n + ".") for other in names)}


def where(path: Path, node: ast.AST) -> str:
    return f"{path.name}:{node.lineno}"  # type: ignore[attr-defined]


def test_every_kernel_and_rule_is_read():
    """The checks below see the source of every primitive, and of every rule of its vjp."""

    def places(functions) -> set:
        """File and line; that of the first decorator, as in a code object."""
        return {
            (str(path), min([n.lineno, *(d.lineno for d in getattr(n, "decorator_list", []))]))
            for path, n in functions
        }

    def place(fn) -> tuple[str, int]:
        code = inspect.unwrap(fn).__code__  # kernels are wrapped where bfloat16 is in use
        return code.co_filename, code.co_firstlineno

    read = places(kernels())
    assert not [n for n, p in PRIMITIVES.items() if place(p.kernel) not in read]
    read = places(rules())
    assert not [n for n, p in PRIMITIVES.items() for _, fn in p.rules if place(fn) not in read]


def test_kernels_call_only_documented_functions():
    """Every ``xp.NAME`` is in the array API standard or documented by CuPy under that name."""
    wrong = []
    for path, node in kernels():
        for name in used(node, "xp"):
            call = name.removesuffix(".at").removesuffix(".outer")
            known = name in STANDARD or call in standin.CUPY or name in standin.CONSTANTS
            if name.endswith(".at"):
                known = call in standin.UFUNC_AT
            if not known:
                wrong.append(f"{where(path, node)}: xp.{name}")
    assert not wrong, wrong


def test_kernels_use_no_keyword_that_only_numpy_has():
    """``initial=`` and ``where=`` are NumPy's alone."""
    wrong = []
    for path, node in kernels():
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and dotted(call.func)[0] == "xp":
                words = {k.arg for k in call.keywords} & standin.REFUSED
                wrong += [f"{where(path, call)}: {word}=" for word in words]
    assert not wrong, wrong


def test_kernels_call_no_numpy_on_arrays():
    """In a kernel ``np`` is for dtypes, numbers and shapes."""
    wrong, exempt = [], set()
    for path, node in kernels():
        name = getattr(node, "name", "")
        extra = used(node, "np") - NUMPY_OF_THE_HOST
        if name in TABLES_FROM_SIZES:
            exempt.add(name)
        elif extra:
            wrong.append(f"{where(path, node)}: np.{', np.'.join(sorted(extra))}")
    assert not wrong, wrong
    assert exempt == TABLES_FROM_SIZES


def test_rules_are_written_in_operations_on_tensors():
    """A rule reads ``._data`` only for its shape, rank, size and dtype, and calls no namespace."""
    wrong = []
    for path, node in rules():
        for parent in ast.walk(node):
            for child in ast.iter_child_nodes(parent):
                if isinstance(child, ast.Attribute) and child.attr in ("_data", "_host", "numpy"):
                    allowed = isinstance(parent, ast.Attribute) and parent.attr in (
                        "shape", "ndim", "dtype", "size",
                    )  # fmt: skip
                    if child.attr != "_data" or not allowed:
                        wrong.append(f"{where(path, child)}: {ast.unparse(child)}")
    assert not wrong, wrong


def test_no_branches_by_backend():
    """No kernel or rule asks which library it runs on."""
    wrong = []
    for path, node in [*kernels(), *rules()]:
        for part in ast.walk(node):
            text = ""
            if isinstance(part, ast.Compare):
                sides = [part.left, *part.comparators]
                if any(isinstance(s, ast.Name) and s.id in ("xp", "np", "cupy") for s in sides):
                    text = ast.unparse(part)
            elif isinstance(part, ast.Call) and ast.unparse(part.func) in ("isinstance", "hasattr"):
                if any(word in ast.unparse(part) for word in ("ndarray", "xp", "cupy")):
                    text = ast.unparse(part)
            elif isinstance(part, (ast.Name, ast.Attribute)) and "cupy" in ast.unparse(part):
                text = ast.unparse(part)
            elif isinstance(part, ast.Attribute) and part.attr in ("__name__", "only_namespace"):
                text = ast.unparse(part) if dotted(part)[0] == "xp" else ""
            if text:
                wrong.append(f"{where(path, part)}: {text}")
    assert not wrong, wrong


# The stand-in

CASES = [
    pytest.param(p, s, id=f"{name}-{i}")
    for name, p in PRIMITIVES.items()
    for i, s in enumerate(samples_of(p))
    if any(isinstance(a, np.ndarray) for a in s.args)  # else there is no array to know a library by
]


def results(value):
    return list(value) if isinstance(value, (tuple, list)) else [value]


def derivatives(p, args, params):
    """The value, and the first and second derivative of its sum."""
    sources = [a for a in args if isinstance(a, Tensor) and a._data.dtype.kind in "fc"]
    with tf.GradientTape() as outer:
        outer.watch(sources)
        with tf.GradientTape() as inner:
            inner.watch(sources)
            value = results(bind(p, *args, **params))
        smooth = [v for v in value if v._data.dtype.kind in "fc"]
        first = [g for g in inner.gradient(smooth, sources) if g is not None]
    second = [g for g in outer.gradient(first, sources) if g is not None]
    return value + [tf.convert_to_tensor(g) for g in first + second]


@pytest.mark.cpu  # it has a library of its own beside NumPy
@pytest.mark.parametrize("p, s", CASES)
def test_values_and_derivatives_on_a_strict_stand_in(p, s):
    """The same numbers, every one of them made by the other library's own functions."""
    params = {**p.defaults, **s.params}
    here = [Tensor(a) if isinstance(a, np.ndarray) else a for a in s.args]
    with standin.registered() as library:
        there = [Tensor(library.asarray(a)) if isinstance(a, np.ndarray) else a for a in s.args]
        found = derivatives(p, there, params)
        assert all(type(f._data) is standin.Array for f in found)
        found = [f.numpy() for f in found]
    for f, e in zip(found, derivatives(p, here, params), strict=True):
        np.testing.assert_array_equal(f, e)


@pytest.mark.cpu  # it has a library of its own beside NumPy
def test_a_training_step_on_the_stand_in():
    """Variables, a tape, a loss: the whole path, on arrays of another library."""
    with standin.registered() as library:

        def tensor(*shape):
            rng = np.random.default_rng(len(shape))
            return Tensor(library.asarray(rng.normal(size=shape)))

        x, w, b = tensor(8, 3), tf.Variable(tensor(3, 4)), tf.Variable(tensor(4))
        with tf.GradientTape(persistent=True) as tape:
            y = tf.tanh(x @ w + b)
            loss = tf.reduce_mean(y**2) + 0.5 * tf.reduce_sum(w[0] * w[1])
        of_w, of_b = tape.gradient(loss, [w, b])
        before = float(loss)
        assert type(of_w._data) is type(of_b._data) is standin.Array
        assert type(tape.jacobian(loss, b)._data) is standin.Array
        w.assign_sub(0.1 * of_w)
        b.assign_sub(0.1 * of_b)
        y = tf.tanh(x @ w + b)
        assert float(tf.reduce_mean(y**2) + 0.5 * tf.reduce_sum(w[0] * w[1])) < before


def test_the_stand_in_is_strict():
    """NumPy on its arrays, mixed arrays, unknown functions and keywords are all refused."""
    library = standin.backend
    x, xp = library.asarray([1.0, 2.0]), library.xp
    for wrong in (
        lambda: np.sum(x),
        lambda: np.exp(x),
        lambda: np.asarray(x),
        lambda: x + np.ones(2),
        lambda: np.ones(2) + x,
        lambda: xp.add(x, np.ones(2)),
        lambda: xp.concatenate([x, np.ones(2)]),
        lambda: x[np.array([0])],
        lambda: xp.max(x, initial=0.0),
    ):
        with pytest.raises(TypeError):
            wrong()
    for name in ("einsum_path", "ndarray", "lib.stride_tricks.sliding_window_view"):
        with pytest.raises(AttributeError):
            target = xp
            for part in name.split("."):
                target = getattr(target, part)
    with pytest.raises(AttributeError):
        xp.multiply.at(x, 0, 2.0)
    with pytest.raises(AttributeError):
        _ = library.special.gammasgn
    with pytest.raises(AttributeError):
        x.tolist()
    assert isinstance(2.0 - x, standin.Array) and isinstance(np.float64(2.0) * x, standin.Array)
    assert float(xp.sum(x)) == 3.0 and type(xp.sum(x)) is standin.Array


# The array API standard

# The standard's name for what NumPy and every version of CuPy call otherwise.
RENAMED = {
    **{f"arc{n}": f"a{n}" for n in ("cos", "cosh", "sin", "sinh", "tan", "tan2", "tanh")},
    "concatenate": "concat",
    "transpose": "permute_dims",
    "power": "pow",
    "invert": "bitwise_invert",
    "left_shift": "bitwise_left_shift",
    "right_shift": "bitwise_right_shift",
}


class Strict:
    """The strict implementation of the standard, under NumPy's older names as well."""

    def __getattr__(self, name: str):
        return getattr(array_api_strict, RENAMED.get(name, name))


# Kernels that go beyond the standard, by what of NumPy and CuPy they use; all others keep to it.
BEYOND = {
    "methods of arrays (copy, astype, reshape, sum, ...)": """
        all_true any_true argmax_along argmin_along at_maximum average_update biased_grad
        cast_discrete cast_float complex convolve convolve_grad_x custom_call dense dense_grad
        depthwise_convolve_grad_w depthwise_convolve_grad_x dot floordiv floormod fourier
        imag_part linear_scan lstm_steps max max_windows max_windows_grad mean
        mean_sparse_cross_entropy mean_sparse_cross_entropy_grad min observed_moments
        prod real_fourier real_part rectified_windows rectified_windows_grad reread
        rescaled_grad reshape_to row_positions rows_over_shards solve_triangle split_at square_sum
        sum sum_to take_grad truncatediv truncatemod""",
    "out=, or writes to copies of its own": """
        adadelta_update adagrad_update adam_update adamax_update amsgrad_update clip_update
        cross_entropy_grad decay_update ftrl_update lion_update lstm_steps_grad momentum_update
        nadam_update rmsprop_update scale_update sgd_update softmax_along
        sparse_cross_entropy_grad""",
    "functions that the standard lacks or writes otherwise": """
        argsort_last cholesky_factor cross_product cumprod_along cumsum_along
        cumulative_logsumexp_along diagonal_of nonzero places_of_largest rint singular_values
        solve_system svd_factors unique_parts""",
    "special functions": """
        bessel_i0 bessel_i0e bessel_i1 bessel_i1e bessel_j0 bessel_j1 bessel_k0 bessel_k0e bessel_k1
        bessel_k1e bessel_y0 bessel_y1 dawsn expint fresnel_cos fresnel_sin spence
        betainc biased digamma erf erfc erfcinv erfinv
        gelu_exact gelu_exact_grad igamma igammac lgamma ndtri polygamma zeta""",
    "index arrays, None or slices past the end as an index": """
        convolve_grad_w depthwise_convolve diagonal_embed gather_rows getitem_grad mean_windows
        mean_windows_grad put_max put_min put_rows shift take""",
    "NumPy's dtype objects, or bool as a number": """
        among_largest attention attention_grad band fill ravel_index relu_grad search_rows""",
    "functions of two Python numbers": "integer_power quotient_or_zero xdivy",
    "the backend's own calls": """
        random_integers random_normal random_permutation random_rows random_truncated_normal
        random_uniform""",
}
LISTED = {name for names in BEYOND.values() for name in names.split()}


def keeps_to_the_standard(p) -> bool:
    for s in samples_of(p):
        params = {**p.defaults, **s.params}
        expected = results(p.kernel(np, *s.args, **params))
        strict = [array_api_strict.asarray(a) if isinstance(a, np.ndarray) else a for a in s.args]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = results(p.kernel(Strict(), *strict, **params))
        except (TypeError, ValueError, AttributeError, IndexError):
            return False
        for f, e in zip(found, expected, strict=True):
            np.testing.assert_allclose(np.asarray(f), e, rtol=1e-13)
    return True


@pytest.mark.parametrize("name", sorted(set(PRIMITIVES) - LISTED))
def test_runs_on_the_array_api_standard(name):
    """Every other kernel gives the same numbers on the standard's strict implementation."""
    source = inspect.getsource(PRIMITIVES[name].kernel)
    assert keeps_to_the_standard(PRIMITIVES[name]), (
        f"{name} goes beyond the array API standard; write it with the standard's functions, or "
        f"add it to BEYOND under what it uses:\n{source}"
    )


def test_the_list_of_what_goes_beyond_is_exact():
    """A name leaves the list once its kernel keeps to the standard."""
    unknown = LISTED - set(PRIMITIVES)
    assert not unknown, f"no primitives: {unknown}"
    own = set(BEYOND["the backend's own calls"].split())
    kept = {name for name in LISTED - own if keeps_to_the_standard(PRIMITIVES[name])}
    assert not kept, f"these keep to the standard by now: {kept}"
    assert len(set(PRIMITIVES) - LISTED) > 80
