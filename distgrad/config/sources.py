"""The section ``data`` of a job: one class for each source, with its keys and their defaults."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Delimiter = Annotated[str, Field(min_length=1, max_length=1)]


class Section(BaseModel):
    """A part of a job: unknown keys are errors, and text is never taken for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


_Section = TypeVar("_Section", bound=Section)


def _go_together(section: _Section, first: str, second: str) -> _Section:
    if (getattr(section, first) is None) != (getattr(section, second) is None):
        raise PydanticCustomError("together", f"{first} and {second} go together")
    return section


def _label_apart(section: _Section) -> _Section:
    label, columns, categories = (getattr(section, n) for n in ("label", "columns", "categories"))
    if columns is not None and not set(categories or ()) <= set(columns):
        raise PydanticCustomError("together", "categories must be among the columns")
    if len(set(columns or ())) < len(columns or ()):
        raise PydanticCustomError("together", "columns name one of them twice")
    if label in (*(categories or ()), *(columns or ())):
        raise PydanticCustomError("together", "the label cannot be one of columns or categories")
    return section


def _path_or_builtin(section: _Section) -> _Section:
    path, builtin = (getattr(section, n) for n in ("path", "builtin"))
    if (path is None) == (builtin is None):
        raise PydanticCustomError("together", "give one of path and builtin")
    return section


class DataSection(Section):
    """Where samples come from."""

    validation_fraction: Fraction | None = None
    """The part of the training samples (of text and series their end) that is not trained on, but
    evaluated after every epoch: `val_loss`, ...; null: none."""


class Digits(DataSection):
    """1,797 handwritten digits of 8 x 8 pixels; they come with the package."""

    source: Literal["digits"]
    test_fraction: Fraction = 0.2
    """The part of the samples, drawn by the seed, that is held out for the test."""


class Mnist(DataSection):
    """70,000 handwritten digits of 28 x 28 pixels, from the Keras cache or downloaded to it."""

    source: Literal["mnist"]
    path: str | None = None
    """The file, or a folder of IDX files; without it `~/.keras/datasets/mnist.npz`."""


class FashionMnist(DataSection):
    """70,000 pieces of clothing, 28 x 28 pixels, from the Keras cache or downloaded to it."""

    source: Literal["fashion_mnist"]
    path: str | None = None
    """The folder of the four IDX files; without it `~/.keras/datasets/fashion-mnist`."""


class Cifar10(DataSection):
    """60,000 coloured images of 32 x 32 pixels, from the Keras cache or downloaded to it."""

    source: Literal["cifar10"]
    path: str | None = None
    """The archive, Python or binary version, or a folder of its files; without it the Keras
    cache."""


class BreastCancer(DataSection):
    """569 tumours with 30 measures each and the diagnosis; they come with the package."""

    source: Literal["breast_cancer"]
    test_fraction: Fraction = 0.2
    """The part of the rows, drawn by the seed, that is held out for the test."""
    standardize: bool = True
    """Whether columns are brought to mean 0 and deviation 1, by the rows that are trained on."""


class Npz(DataSection):
    """Your own arrays: `x_train, y_train, x_test, y_test`, or `x, y`, in one file."""

    source: Literal["npz"]
    path: str
    """The file, from the folder where the command is given."""
    test_fraction: Fraction = 0.2
    """The part of `x, y`, drawn by the seed, that is held out for the test."""


class Npy(DataSection):
    """Your own arrays, one to a file; they stay on the disk, and are read as they are used."""

    source: Literal["npy"]
    x: str
    """The file of inputs, from the folder where the command is given."""
    y: str
    """The file of targets: whole numbers are classes."""
    test_x: str | None = None
    """The inputs of the test; without it a part of `x, y` is held out."""
    test_y: str | None = None
    test_fraction: Fraction = 0.2
    """The part of `x, y`, drawn by the seed, that is held out for the test."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """What the inputs are divided by: 255 for bytes."""

    @model_validator(mode="after")
    def _together(self) -> Self:
        return _go_together(self, "test_x", "test_y")


class Idx(DataSection):
    """Your own images in the format of MNIST, compressed or not; bytes become 0 to 1."""

    source: Literal["idx"]
    images: str
    """The file of images, from the folder where the command is given."""
    labels: str
    test_images: str | None = None
    """The images of the test; without them a part of `images` is held out."""
    test_labels: str | None = None
    test_fraction: Fraction = 0.2
    """The part of `images`, drawn by the seed, that is held out for the test."""

    @model_validator(mode="after")
    def _together(self) -> Self:
        return _go_together(self, "test_images", "test_labels")


class Parquet(DataSection):
    """Your own table in a Parquet file (needs pyarrow): numbers, categories, and a label."""

    source: Literal["parquet"]
    path: str
    """The file, from the folder where the command is given."""
    label: str
    """The column to predict: text and whole numbers are classes, other numbers are values."""
    columns: tuple[str, ...] | None = None
    """The columns to predict from; null: all but the label."""
    categories: tuple[str, ...] | None = None
    """Columns of texts: each text of the rows to train on is a column of ones and zeros; null:
    none."""
    missing: Literal["mean", "median"] | None = None
    """What stands in for a missing number: that of its column's others in the rows to train on;
    null: it is an error."""
    test_fraction: Fraction = 0.2
    """The part of the rows, drawn by the seed, that is held out for the test."""
    standardize: bool = True
    """Whether columns are brought to mean 0 and deviation 1, by the rows that are trained on."""

    _apart = model_validator(mode="after")(_label_apart)


class Csv(DataSection):
    """Your own table in a CSV file: columns of numbers, of categories, and a label."""

    source: Literal["csv"]
    path: str
    """The file, from the folder where the command is given; `.gz` is read, too."""
    label: str
    """The column to predict: text and whole numbers are classes, other numbers are values."""
    columns: tuple[str, ...] | None = None
    """The columns to predict from; null: all but the label."""
    categories: tuple[str, ...] | None = None
    """Columns of texts: each text of the rows to train on is a column of ones and zeros; null:
    none."""
    missing: Literal["mean", "median"] | None = None
    """What stands in for a missing number: that of its column's others in the rows to train on;
    null: it is an error."""
    test_fraction: Fraction = 0.2
    """The part of the rows, drawn by the seed, that is held out for the test."""
    standardize: bool = True
    """Whether columns are brought to mean 0 and deviation 1, by the rows that are trained on."""
    delimiter: Delimiter = ","
    header: bool = True
    """Whether the first line names the columns; else they are called "0", "1", "2", ..."""

    _apart = model_validator(mode="after")(_label_apart)


class Text(DataSection):
    """A text, character by character: windows, and the same ones a character later."""

    source: Literal["text"]
    path: str | None = None
    """A file in UTF-8, from the folder where the command is given."""
    builtin: Literal["python-help"] | None = None
    """In place of a file: the texts of `help()` that come with Python."""
    sequence_length: Count
    """Characters in a window."""
    vocabulary: Annotated[int, Field(ge=2)] | None = None
    """How many codes there are: 0 for rare characters, the others for the most frequent ones;
    null: one for each character of the text."""
    test_fraction: Fraction = 0.1
    """The part at the end of the text that is held out for the test."""

    _either = model_validator(mode="after")(_path_or_builtin)


class Series(DataSection):
    """A time series: windows of values, and those that follow; brought to mean 0, deviation 1."""

    source: Literal["series"]
    path: str | None = None
    """A CSV file with a header, from the folder where the command is given."""
    builtin: Literal["el-nino"] | None = None
    """In place of a file: monthly sea surface temperatures, which come with the package."""
    column: str | None = None
    """The column of the file; null: the last one."""
    delimiter: Delimiter = ","
    window: Count
    """Values that a forecast sees."""
    horizon: Count = 1
    """Values to forecast."""
    test_fraction: Fraction = 0.2
    """The part at the end of the series that is held out for the test."""

    _either = model_validator(mode="after")(_path_or_builtin)


Data = (
    Digits
    | Mnist
    | FashionMnist
    | Cifar10
    | BreastCancer
    | Npz
    | Npy
    | Idx
    | Csv
    | Parquet
    | Text
    | Series
)
