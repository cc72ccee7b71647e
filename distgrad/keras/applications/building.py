"""What the networks of ``keras.applications`` have in common: arguments, input, end and weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distgrad.core.user_line import warn
from distgrad.keras import activations, layers, settings
from distgrad.keras.layers.symbolic import KerasTensor, sources
from distgrad.keras.models.functional import Functional
from distgrad.keras.utils.files import get_file

STORAGE = "https://storage.googleapis.com/tensorflow/keras-applications/"
_IMAGENET = 1000  # classes

Shape = tuple[Any, ...]  # sizes, None where they may vary


@dataclass
class Network:
    """What a user asks of a network.

    Raises ValueError for weights that are neither None, ``"imagenet"`` nor a file, for a shape that
    is none of an image, and for classes or a last activation with which the network of the weights
    cannot have been trained.
    """

    include_top: bool = True
    weights: Any = "imagenet"
    input_tensor: Any = None
    input_shape: Any = None
    pooling: str | None = None
    classes: int = _IMAGENET
    classifier_activation: Any = "softmax"
    name: str = "network"

    def __post_init__(self) -> None:
        named = isinstance(self.weights, (str, os.PathLike))
        if self.weights is not None and not (
            named and (self.pretrained or os.path.exists(self.weights))
        ):
            raise ValueError(
                "The `weights` argument should be either `None` (random initialization), "
                "'imagenet' (pre-training on ImageNet), or the path to the weights file to be "
                f"loaded. Received: weights={self.weights}"
            )
        if self.input_shape and len(self.input_shape) != 3:
            raise ValueError(
                f"`input_shape` must be a tuple of three integers, not {self.input_shape}"
            )
        if self.pretrained and self.include_top and self.classes != _IMAGENET:
            raise ValueError(
                "If using `weights='imagenet'` with `include_top=True`, `classes` should be "
                f"{_IMAGENET}. Received: classes={self.classes}"
            )
        activation = self.classifier_activation
        if self.include_top and self.weights is not None:
            wanted = (activations.softmax, activations.linear)
            if activations.get(activation) not in wanted:
                raise ValueError(
                    "`classifier_activation` can only be `None` or `'softmax'` when using a "
                    f"pretrained top layer. Received: classifier_activation={activation}"
                )

    @property
    def pretrained(self) -> bool:
        return isinstance(self.weights, str) and self.weights == "imagenet"

    @property
    def channels(self) -> int:
        return self.input_shape[2 if channels_last() else 0]

    def choose(self, with_top: Any, without: Any) -> Any:
        """The first where the network ends in classes, else the second."""
        return with_top if self.include_top else without

    def begin(self, default_size: int, min_size: int = 32) -> KerasTensor:
        """The images that go in. Raises ValueError for a shape that the network cannot take."""
        self.input_shape = self._shape(default_size, min_size)
        return self.source()

    def source(self) -> KerasTensor:
        """The tensor that is given, or an input of the shape that is."""
        if self.input_tensor is None:
            self.input_tensor = layers.Input(shape=self.input_shape)
        if not isinstance(self.input_tensor, KerasTensor):
            raise ValueError(
                "input_tensor is a KerasTensor, such as keras.Input makes, not "
                f"{type(self.input_tensor).__name__}; call the network on it instead"
            )
        return self.input_tensor

    def _shape(self, default_size: int, min_size: int) -> Shape:
        given = self.input_shape
        channel = -1 if channels_last() else 0
        channels = 3
        if not self.pretrained and given:
            channels = given[channel]
            if channels not in (1, 3):
                warn(
                    "This model usually expects 1 or 3 input channels. However, it was passed an "
                    f"input_shape with {channels} input channels."
                )
        default = images_of(default_size, default_size, channels)
        if self.pretrained and self.include_top:
            if given is not None and tuple(given) != default:
                raise ValueError(
                    "When setting `include_top=True` and loading `imagenet` weights, "
                    f"`input_shape` should be {default}. Received: input_shape={given}"
                )
            return default
        if not given:
            return default if self.include_top else images_of(None, None, 3)
        if given[channel] != 3 and self.pretrained:
            raise ValueError(
                f"The input must have 3 channels; Received `input_shape={tuple(given)}`"
            )
        if any(size is not None and size < min_size for size in space_of(given)):
            raise ValueError(
                f"Input size must be at least {min_size}x{min_size}; Received: "
                f"input_shape={tuple(given)}"
            )
        if self.include_top and None in given:
            raise ValueError(
                "If `include_top` is True, you should specify a static `input_shape`. Received: "
                f"input_shape={tuple(given)}"
            )
        return tuple(given)

    def end(
        self,
        x: KerasTensor,
        *,
        pool: str | None = "avg_pool",
        pooled: tuple[str | None, str | None] = (None, None),
        dropout: float = 0.0,
        **dense: Any,
    ) -> KerasTensor:
        """Classes of the mean of each image; without them, what ``pooling`` asks for.

        ``pool`` and ``pooled`` are the names of the layers that pool, ``dense`` has more arguments
        of the last one.
        """
        if not self.include_top:
            return self.pooled(x, *pooled)
        x = layers.GlobalAveragePooling2D(name=pool)(x)
        if dropout > 0:
            x = layers.Dropout(dropout, name="top_dropout")(x)
        return self.classified(x, **dense)

    def classified(self, x: KerasTensor, **dense: Any) -> KerasTensor:
        """A dense layer of the classes."""
        activation = self.classifier_activation
        return layers.Dense(self.classes, activation, name="predictions", **dense)(x)

    def pooled(
        self, x: KerasTensor, mean: str | None = None, largest: str | None = None
    ) -> KerasTensor:
        """The mean or the largest of each image, by layers of these names, or all of it."""
        if self.pooling == "avg":
            return layers.GlobalAveragePooling2D(name=mean)(x)
        if self.pooling == "max":
            return layers.GlobalMaxPooling2D(name=largest)(x)
        return x

    def model(
        self, outputs: KerasTensor, url: str, digest: str | None = None, fname: str | None = None
    ) -> Functional:
        """The model with its weights: those of ImageNet lie at ``url``, with this hash.

        Raises DataError where they cannot be had.
        """
        inputs = sources(self.input_tensor)
        ends = inputs[0] if len(inputs) == 1 else inputs  # so that model.input is a tensor
        model = Functional(ends, outputs, name=self.name)
        if self.pretrained:
            fname = fname or url.rpartition("/")[2]
            model.load_weights(get_file(fname, url, cache_subdir="models", file_hash=digest))
        elif self.weights is not None:
            model.load_weights(self.weights)
        return model

    def kernels(self, folder: str, stem: str) -> str:
        """The address of weights, as most of the older files are named."""
        kind = self.choose("", "_notop")
        return f"{STORAGE}{folder}/{stem}_weights_tf_dim_ordering_tf_kernels{kind}.h5"


Builder = Callable[[Network], Functional]


def application(name: str) -> Callable[[Builder], Callable[..., Functional]]:
    """Decorator: a function that builds a Network as one with Keras's arguments."""

    def decorate(build: Builder) -> Callable[..., Functional]:
        def make(
            include_top: bool = True,
            weights: Any = "imagenet",
            input_tensor: Any = None,
            input_shape: Any = None,
            pooling: str | None = None,
            classes: int = _IMAGENET,
            classifier_activation: Any = "softmax",
            name: str = name,
        ) -> Functional:
            asked = (include_top, weights, input_tensor, input_shape, pooling, classes)
            return build(Network(*asked, classifier_activation, name))

        return dressed(make, build)

    return decorate


def dressed(make: Callable[..., Functional], like: Builder) -> Callable[..., Functional]:
    """``make`` under the name and with the text of another function."""
    for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(make, attribute, getattr(like, attribute))
    return make


# Images


def channels_last() -> bool:
    return settings.image_data_format == "channels_last"


def want_channels_last(network: str) -> None:
    """Raises ValueError, naming the ``network``, where the data format in use is another."""
    if not channels_last():
        raise ValueError(
            f"{network} does not support the `channels_first` image data format: "
            "keras.config.set_image_data_format('channels_last')"
        )


def images_of(rows: Any, columns: Any, channels: Any) -> Shape:
    """The shape of images in the data format in use."""
    return (rows, columns, channels) if channels_last() else (channels, rows, columns)


def space_of(shape: Any) -> tuple[Any, Any]:
    """Rows and columns of images of this shape, of one of them or of a batch."""
    rows, columns = tuple(shape)[-3:-1] if channels_last() else tuple(shape)[-2:]
    return rows, columns


def channel_axis(last: int = 3) -> int:
    """The axis of the channels: ``last`` where they come last."""
    return last if channels_last() else 1


def divisible(value: float, divisor: int = 8) -> int:
    """A number of channels near ``value``: a multiple of ``divisor``, not below 90 % of it."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded
