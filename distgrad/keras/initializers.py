"""Initial values of weights: drawn from the global random stream, or fixed by an own seed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor, beside
from distgrad.core.dtypes import as_dtype
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.keras import registry
from distgrad.keras.registry import Configured
from distgrad.ops import random
from distgrad.ops.arithmetic import sign
from distgrad.ops.casting import cast
from distgrad.ops.constants import eye, fill
from distgrad.ops.decompositions import qr
from distgrad.ops.linalg import main_diagonal
from distgrad.ops.shape import reshape, static, transpose


class Initializer(Configured):
    """Gives a tensor of a shape and dtype."""

    def __call__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Tensor:
        raise NotImplementedError

    def clone(self) -> Any:
        """Another one with the same settings."""
        return type(self).from_config(self.get_config())


class Constant(Initializer):
    """``value`` everywhere; a list or array of as many numbers as the shape has, one by one."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def __call__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Tensor:
        value: Any = self.value
        listed = isinstance(value, (list, tuple, range, np.ndarray))
        if listed and np.size(value) == math.prod(shape):
            value = np.reshape(value, shape)
        return cast(fill(shape, value), dtype)


class Zeros(Constant):
    """Zeros."""

    def __init__(self) -> None:
        super().__init__(0.0)


class Ones(Constant):
    """Ones."""

    def __init__(self) -> None:
        super().__init__(1.0)


class Identity(Initializer):
    """``gain`` on the diagonal of a matrix, zeros elsewhere. Raises ValueError for other ranks."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def __call__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Tensor:
        shape = static(shape)
        if len(shape) != 2:
            raise ValueError(f"an identity is a matrix, not of shape {tuple(shape)}")
        return eye(*shape, dtype=dtype) * self.gain


class RandomInitializer(Initializer):
    """Base of random initializers: with an own ``seed`` every call gives the same numbers.

    With a ``keras.random.SeedGenerator`` for a seed it gives the next ones.
    """

    seed: Any = None

    def _normal(self, shape: Any, mean: float, deviation: float, dtype: Any) -> Tensor:
        if self.seed is None:
            return random.normal(shape, mean, deviation, dtype)
        return random.stateless_normal(shape, self._pair(), mean, deviation, dtype)

    def _truncated(self, shape: Any, mean: float, deviation: float, dtype: Any) -> Tensor:
        if self.seed is None:
            return random.truncated_normal(shape, mean, deviation, dtype)
        return random.stateless_truncated_normal(shape, self._pair(), mean, deviation, dtype)

    def _uniform(self, shape: Any, low: float, high: float, dtype: Any) -> Tensor:
        if self.seed is None:
            return random.uniform(shape, low, high, dtype)
        return random.stateless_uniform(shape, self._pair(), low, high, dtype)

    def _pair(self) -> Any:
        return self.seed.next() if hasattr(self.seed, "next") else (self.seed, 0)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """An object made with these arguments."""
        made = super().from_config(config)
        if isinstance(made.seed, Mapping):
            from distgrad.keras.random import SeedGenerator

            made.seed = SeedGenerator.from_config(made.seed["config"])
        return made


class RandomNormal(RandomInitializer):
    """Normal numbers."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        self.mean, self.stddev, self.seed = mean, stddev, seed

    def __call__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Tensor:
        return self._normal(shape, self.mean, self.stddev, dtype)


class TruncatedNormal(RandomInitializer):
    """Normal numbers; those beyond two deviations are drawn again."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        self.mean, self.stddev, self.seed = mean, stddev, seed

    def __call__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Tensor:
        return self._truncated(shape, self.mean, self.stddev, dtype)


class RandomUniform(RandomInitializer):
    """Uniform numbers in [minval, maxval)."""

    def __init__(
        self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None
    ) -> None:
        self.minval, self.maxval, self.seed = minval, maxval, seed

    def __call__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Tensor:
        return self._uniform(shape, self.minval, self.maxval, dtype)


class Orthogonal(RandomInitializer):
    """A random matrix with orthogonal columns (or rows, if there are fewer) of length ``gain``.

    All axes but the last count as rows. Raises ValueError for a rank below 2. Saxe et al., 2014.
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        self.gain, self.seed = gain, seed

    def __call__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Tensor:
        shape = static(shape)
        if len(shape) < 2:
            raise ValueError(f"an orthogonal matrix has rank 2 or more, not shape {tuple(shape)}")
        if as_dtype(dtype).size < 4:  # LAPACK takes no halves
            return cast(self(shape), dtype)
        rows, columns = math.prod(shape[:-1]), shape[-1]
        draw = self._normal((max(rows, columns), min(rows, columns)), 0.0, 1.0, dtype)
        on_device = type(draw._data) is not np.ndarray
        # On the host: weights begin with the same bits wherever they are trained.
        q, r = qr(Tensor(draw._host()) if on_device else draw)
        q = q * sign(main_diagonal(r))  # every orthogonal matrix is then equally likely
        made = reshape(transpose(q) if rows < columns else q, tuple(shape)) * self.gain
        return Tensor(beside(draw._data, made._data)) if on_device else made


_MODES = ("fan_in", "fan_out", "fan_avg")
_DISTRIBUTIONS = ("truncated_normal", "untruncated_normal", "uniform")


class VarianceScaling(RandomInitializer):
    """Random numbers whose variance is ``scale`` over the fan (Glorot 2010, He 2015).

    The fans are the sizes of ``input_axes`` and ``output_axes``, where both are given. Raises
    ValueError for a scale that is not positive, or an unknown mode or distribution.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        distribution = "truncated_normal" if distribution == "normal" else distribution.lower()
        if not scale > 0:
            raise ValueError(f"scale must be positive, not {scale!r}")
        if mode not in _MODES:
            raise ValueError(f"mode must be one of {_MODES}, not {mode!r}")
        if distribution not in _DISTRIBUTIONS:
            raise ValueError(f"distribution must be one of {_DISTRIBUTIONS}, not {distribution!r}")
        self.scale, self.mode, self.distribution, self.seed = scale, mode, distribution, seed
        self.input_axes, self.output_axes = input_axes, output_axes

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; the axes only where they are set, as older Keras knows."""
        config = super().get_config()
        return {n: v for n, v in config.items() if not (n.endswith("_axes") and v is None)}

    def __call__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Tensor:
        fan_in, fan_out = _fans(static(shape))
        if self.input_axes is not None and self.output_axes is not None:
            axes = self.input_axes, self.output_axes
            fan_in, fan_out = (math.prod(static(shape)[i] for i in own) for own in axes)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return self._uniform(shape, -limit, limit, dtype)
        if self.distribution == "untruncated_normal":
            return self._normal(shape, 0.0, math.sqrt(variance), dtype)
        # A normal cut at two deviations keeps .8796 of its deviation.
        return self._truncated(shape, 0.0, math.sqrt(variance) / 0.87962566103423978, dtype)


def over_axes(initializer: Any, taken: Sequence[int], given: Sequence[int]) -> Any:
    """The initializer for a kernel whose axes stand for inputs and outputs like this."""
    if not isinstance(initializer, VarianceScaling):
        return initializer
    made = copy.copy(initializer)
    made.input_axes, made.output_axes = taken, given
    return made


def _fans(shape: tuple[int, ...]) -> tuple[float, float]:
    if len(shape) < 2:
        size = shape[0] if len(shape) else 1
        return size, size
    receptive = math.prod(shape[:-2])
    return shape[-2] * receptive, shape[-1] * receptive


class GlorotUniform(VarianceScaling):
    """Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""

    def __init__(
        self,
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(1.0, "fan_avg", "uniform", seed, input_axes, output_axes)


class GlorotNormal(VarianceScaling):
    """Truncated normal with variance 2 / (fan_in + fan_out)."""

    def __init__(
        self,
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(1.0, "fan_avg", "truncated_normal", seed, input_axes, output_axes)


class HeUniform(VarianceScaling):
    """Uniform in +-sqrt(6 / fan_in) (He et al., 2015)."""

    def __init__(
        self,
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(2.0, "fan_in", "uniform", seed, input_axes, output_axes)


class HeNormal(VarianceScaling):
    """Truncated normal with variance 2 / fan_in."""

    def __init__(
        self,
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(2.0, "fan_in", "truncated_normal", seed, input_axes, output_axes)


class LecunUniform(VarianceScaling):
    """Uniform in +-sqrt(3 / fan_in) (LeCun et al., 1998)."""

    def __init__(
        self,
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(1.0, "fan_in", "uniform", seed, input_axes, output_axes)


class LecunNormal(VarianceScaling):
    """Truncated normal with variance 1 / fan_in."""

    def __init__(
        self,
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(1.0, "fan_in", "truncated_normal", seed, input_axes, output_axes)


class STFTInitializer(Initializer):
    """Waves of rising frequency times a window: kernels (length, 1, frequencies) of a convolution.

    ``side`` is "real" (cosines) or "imag" (sines). ``window`` is "hann", "hamming", "blackman",
    "bartlett" or "boxcar", its values, or None; by ``scaling`` "density" or "spectrum" its squares
    or its values add up to 1. Raises ValueError for another word, or a window of another length.
    """

    def __init__(
        self,
        side: str = "real",
        window: Any = "hann",
        scaling: str | None = "density",
        periodic: bool = False,
    ) -> None:
        if side not in ("real", "imag"):
            raise ValueError(f"side should be 'real' or 'imag', not {side}")
        if isinstance(window, str) and window not in _WINDOWS:
            raise ValueError(
                f"window must be one of {', '.join(map(repr, _WINDOWS))}, or an array of its "
                f"values, not {window!r}"
            )
        if scaling not in (None, "density", "spectrum"):
            raise ValueError(f"scaling must be None, 'density' or 'spectrum', not {scaling!r}")
        self.side, self.window, self.scaling, self.periodic = side, window, scaling, periodic

    def __call__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Tensor:
        length, _, frequencies = shape
        turns = np.outer(np.arange(length), np.arange(frequencies) / (2 * (frequencies - 1)))
        waves = (np.cos if self.side == "real" else np.sin)(-2 * np.pi * turns)
        if self.window is not None:
            window = self._values(length)
            scale = {
                "density": np.sqrt(np.square(window).sum()),
                "spectrum": np.abs(window).sum(),
            }.get(self.scaling or "", 1.0)
            waves = waves * window[:, None] / scale
        return cast(as_tensor(waves[:, None, :]), dtype)

    def _values(self, length: int) -> np.ndarray:
        if isinstance(self.window, str):
            more = bool(self.periodic) and length > 1
            return _WINDOWS[self.window](length + more)[:length]
        window = np.asarray(self.window, np.float64)
        if window.shape != (length,):
            raise ValueError(
                "The shape of `window` must be equal to [frame_length]. Received: window "
                f"shape={window.shape}"
            )
        return window


_WINDOWS: dict[str, Callable[[int], np.ndarray]] = {
    "hann": np.hanning,
    "hamming": np.hamming,
    "blackman": np.blackman,
    "bartlett": np.bartlett,
    "boxcar": np.ones,
}

constant, zeros, ones, identity, orthogonal = Constant, Zeros, Ones, Identity, Orthogonal
random_normal, random_uniform, truncated_normal = RandomNormal, RandomUniform, TruncatedNormal
glorot_normal, glorot_uniform, variance_scaling = GlorotNormal, GlorotUniform, VarianceScaling
he_normal, he_uniform, lecun_normal, lecun_uniform = HeNormal, HeUniform, LecunNormal, LecunUniform
IdentityInitializer, OrthogonalInitializer, STFT = Identity, Orthogonal, STFTInitializer
stft = STFTInitializer

_KNOWN: dict[str, Any] = registry.by_name(
    Constant,
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    Identity,
    LecunNormal,
    LecunUniform,
    Ones,
    Orthogonal,
    RandomNormal,
    RandomUniform,
    STFTInitializer,
    TruncatedNormal,
    VarianceScaling,
    Zeros,
    IdentityInitializer=Identity,
    OrthogonalInitializer=Orthogonal,
    STFT=STFTInitializer,
    normal=RandomNormal,
    one=Ones,
    stft=STFTInitializer,
    uniform=RandomUniform,
    zero=Zeros,
)


def get(identifier: Any) -> Any:
    """The initializer for a name, a config, an array, an object or a callable; None for None.

    Raises ValueError for a wrong name, and where an array is asked for another shape than its own.
    """
    if identifier is None or isinstance(identifier, (Initializer, _Casting)):
        return identifier
    if isinstance(identifier, Mapping):
        return get(deserialize(identifier))
    if isinstance(identifier, type) and issubclass(identifier, Initializer):
        return identifier()
    if isinstance(identifier, str):
        return get(registry.named("initializer", identifier, _KNOWN))
    if isinstance(identifier, (Tensor, Variable, np.ndarray, np.generic)):
        return _Given(identifier)
    if callable(identifier):
        return _Casting(identifier)
    raise ValueError(f"unknown initializer {identifier!r}")


class _Casting:
    """A user's function as an initializer: what it gives has the dtype that was asked for."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__wrapped__ = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Tensor:
        return cast(as_tensor(self.__wrapped__(shape, dtype=dtype)), dtype)


class _Given(Initializer):
    """An array as the initial value."""

    def __init__(self, value: Any) -> None:
        self.value = np.array(value)

    def __call__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Tensor:
        if tuple(shape) != self.value.shape:
            raise ValueError(f"an initial value of shape {self.value.shape}, asked for {shape}")
        return cast(as_tensor(self.value), dtype)


def serialize(initializer: Initializer) -> Any:
    """The config of an initializer."""
    return registry.serialize(initializer)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The initializer of a config. Raises ValueError for an unknown name."""
    found = registry.deserialize("initializer", config, _KNOWN, custom_objects)
    return found() if isinstance(found, type) else found
