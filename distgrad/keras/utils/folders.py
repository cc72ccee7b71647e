"""A folder of images, texts or sounds as a dataset: one folder within it for each class."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.audio import decode_wav
from distgrad.data.dataset import AUTOTUNE, Dataset
from distgrad.data.rows import seed_of
from distgrad.image_files import decode_image, read_file
from distgrad.keras.layers.core import data_format_of, one_of
from distgrad.launcher.environ import detect
from distgrad.ops import image as images

_IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
_TEXTS = (".txt",)
_SOUNDS = (".wav",)
_CHANNELS = {"grayscale": 1, "rgb": 3, "rgba": 4}


def image_dataset_from_directory(
    directory: Any,
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    color_mode: str = "rgb",
    batch_size: int | None = 32,
    image_size: Any = (256, 256),
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    interpolation: str = "bilinear",
    follow_links: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    data_format: str | None = None,
    format: str = "tf",
    verbose: bool = True,
) -> Any:
    """Batches ``(images, labels)`` of the images in a folder, with a folder for each class.

    Images are float32 (uint8 by "nearest"), 0 to 255, resized to ``image_size``. Labels are class
    numbers ("int"), 0 or 1 ("binary"), rows with a single 1 ("categorical") or left out (None);
    they may also be given as a list, in the order of the sorted paths. ``subset`` is "training",
    "validation" or "both", of which ``validation_split`` is the latter part. Files and their order
    follow from ``seed``; without one they are the same on every worker. Datasets have the
    attributes ``class_names`` and ``file_paths``. Raises ValueError for other words and for a
    folder without images, MissingExtraError (an ImportError) without Pillow.
    """
    one_of("color_mode", color_mode, *_CHANNELS)
    one_of("format", format, "tf")
    if crop_to_aspect_ratio and pad_to_aspect_ratio:
        raise ValueError(
            "Only one of `pad_to_aspect_ratio`, `crop_to_aspect_ratio` can be set to `True`."
        )
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    channels_first = data_format_of(data_format) == "channels_first"

    def read(path: str) -> np.ndarray:
        decoded = decode_image(read_file(path), _CHANNELS[color_mode], expand_animations=False)
        image = decoded.numpy().astype(np.uint8 if interpolation == "nearest" else np.float32)
        if crop_to_aspect_ratio:
            image = _cropped(image, size)
        if pad_to_aspect_ratio:
            image = _padded(image, size, interpolation)
        else:
            image = images.resize(image, size, interpolation).numpy()
        return image.transpose(2, 0, 1) if channels_first else image

    return _datasets(
        *(directory, labels, label_mode, class_names, batch_size, shuffle, seed),
        *(validation_split, subset, follow_links, verbose),
        *(read, _IMAGES, "images"),
    )


def text_dataset_from_directory(
    directory: Any,
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    batch_size: int | None = 32,
    max_length: int | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    follow_links: bool = False,
    format: str = "tf",
    verbose: bool = True,
) -> Any:
    """Batches ``(texts, labels)`` of the .txt files in a folder, with a folder for each class.

    Texts are arrays of str, of ``max_length`` characters at most. All else is as in
    ``image_dataset_from_directory``. Raises ValueError for other words and a folder without texts.
    """
    one_of("format", format, "tf")

    def read(path: str) -> np.ndarray:
        return np.array(Path(path).read_text(encoding="utf-8")[:max_length])

    return _datasets(
        *(directory, labels, label_mode, class_names, batch_size, shuffle, seed),
        *(validation_split, subset, follow_links, verbose),
        *(read, _TEXTS, "text files"),
    )


def audio_dataset_from_directory(
    directory: Any,
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    batch_size: int | None = 32,
    sampling_rate: int | None = None,
    output_sequence_length: int | None = None,
    ragged: bool = False,
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    follow_links: bool = False,
    verbose: bool = True,
) -> Any:
    """Batches ``(sounds, labels)`` of the .wav files in a folder, with a folder for each class.

    Sounds are float32 [samples, channels], -1 to 1, as long as ``output_sequence_length``, or as
    the longest of their batch. They keep the rate of their files. All else is as in
    ``image_dataset_from_directory``. Raises ValueError for other words, a ``sampling_rate``,
    ``ragged=True``, and a folder without sounds.
    """
    if sampling_rate is not None:
        raise ValueError(
            f"sampling_rate can only be None here, not {sampling_rate}: change the rate of the "
            "files first (scipy.signal.resample_poly does it)"
        )
    if ragged:
        raise ValueError("ragged can only be False here: batches are filled up with zeros")
    length = -1 if output_sequence_length is None else int(output_sequence_length)

    def read(path: str) -> np.ndarray:
        return decode_wav(Path(path).read_bytes(), desired_samples=length).audio._host()

    return _datasets(
        *(directory, labels, label_mode, class_names, batch_size, shuffle, seed),
        *(validation_split, subset, follow_links, verbose),
        *(read, _SOUNDS, "audio files", length < 0),
    )


def _datasets(
    directory: Any,
    labels: Any,
    label_mode: str | None,
    class_names: Sequence[str] | None,
    batch_size: int | None,
    shuffle: bool,
    seed: int | None,
    validation_split: float | None,
    subset: str | None,
    follow_links: bool,
    verbose: bool,
    read: Callable[[str], np.ndarray],
    endings: tuple[str, ...],
    what: str,
    padded: bool = False,
) -> Any:
    """The dataset of what ``read`` makes of the files, or those of both subsets.

    ``padded`` batches are filled up with zeros.
    """
    if label_mode not in ("int", "categorical", "binary", None):
        raise ValueError(
            '`label_mode` argument must be one of "int", "categorical", "binary", or None. '
            f"Received: label_mode={label_mode}"
        )
    if labels is None or label_mode is None:
        labels = label_mode = None
    _check_split(validation_split, subset, shuffle, seed)
    chosen = seed_of(seed)
    say = verbose and detect().rank == 0
    paths, numbers, names = _index(directory, labels, class_names, follow_links, say, endings)
    if label_mode == "binary" and len(names or ()) != 2:
        raise ValueError(
            'When passing `label_mode="binary"`, there must be exactly 2 class_names. Received: '
            f"class_names={names}"
        )
    if shuffle:
        order = np.random.RandomState(chosen).permutation(len(paths))
        paths = [paths[i] for i in order]
        numbers = None if numbers is None else numbers[order]

    def dataset(part: slice, shuffled: bool) -> Dataset:
        own = paths[part]
        if not own:
            raise ValueError(
                f"No {what} found in directory {directory}. Allowed formats: {endings}"
            )
        given = None if numbers is None else _encoded(numbers[part], label_mode, len(names or ()))
        found = Dataset.from_tensor_slices(np.arange(len(own)))
        if shuffled:
            found = found.shuffle(len(own), seed=chosen)
        if given is None:
            found = found.map(lambda i: read(own[int(i)]))
        else:
            found = found.map(lambda i: (read(own[int(i)]), given[int(i)]))
        if batch_size is not None:
            found = found.padded_batch(batch_size) if padded else found.batch(batch_size)
        found = found.prefetch(AUTOTUNE)
        found.class_names, found.file_paths = names, own  # type: ignore[attr-defined]
        return found

    held = int((validation_split or 0) * len(paths))
    parts = {
        "training": slice(None, len(paths) - held),
        "validation": slice(len(paths) - held, None),
    }
    if subset is None:
        return dataset(slice(None), shuffle)
    if say:
        for name, part in parts.items():
            if subset in (name, "both"):
                print(f"Using {len(paths[part])} files for {name}.", flush=True)
    if subset == "both":
        return [dataset(parts["training"], shuffle), dataset(parts["validation"], False)]
    return dataset(parts[subset], shuffle)


def _check_split(split: float | None, subset: str | None, shuffle: bool, seed: int | None) -> None:
    if split and not 0 < split < 1:
        raise ValueError(f"`validation_split` must be between 0 and 1, received: {split}")
    if bool(split) != bool(subset):
        raise ValueError("`subset` and `validation_split` go together: set both or none of them")
    if subset not in (None, "training", "validation", "both"):
        raise ValueError(
            f'`subset` must be either "training", "validation" or "both", received: {subset}'
        )
    if split and shuffle and seed is None:
        raise ValueError(
            "If using `validation_split` and shuffling the data, you must provide a `seed` "
            "argument, to make sure that there is no overlap between the training and validation "
            "subset."
        )


def _index(
    directory: Any,
    labels: Any,
    class_names: Sequence[str] | None,
    follow_links: bool,
    say: bool,
    endings: tuple[str, ...],
) -> tuple[list[str], np.ndarray | None, list[str] | None]:
    """The paths of all files, in order, their class numbers, and the names of the classes."""
    root = Path(directory)
    if labels == "inferred":
        there = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != ".")
        if class_names is not None and not set(class_names) <= set(there):
            raise ValueError(
                "The `class_names` passed did not match the names of the subdirectories of the "
                f"target directory. Expected: {there} (or a subset of it), but received: "
                f"class_names={class_names}"
            )
        names = list(class_names or there)
        folders = [files_in(root / name, follow_links, endings) for name in names]
        paths = [path for folder in folders for path in folder]
        numbers = np.repeat(np.arange(len(names), dtype=np.int32), list(map(len, folders)))
        if say:
            print(f"Found {len(paths)} files belonging to {len(names)} classes.", flush=True)
        return paths, numbers, names
    if class_names is not None:
        raise ValueError(
            'You can only pass `class_names` if `labels="inferred"`. Received: '
            f"labels={labels}, and class_names={class_names}"
        )
    paths = files_in(root, follow_links, endings)
    if labels is None:
        if say:
            print(f"Found {len(paths)} files.", flush=True)
        return paths, None, None
    if not isinstance(labels, (list, tuple)) or len(labels) != len(paths):
        raise ValueError(
            "`labels` argument should be a list/tuple of integer labels, of the same size as the "
            f"number of image files in the target directory, {len(paths)}. Received: "
            f"labels={labels}"
        )
    return paths, np.asarray(labels, np.int32), [str(label) for label in sorted(set(labels))]


def files_in(folder: Path, follow_links: bool, endings: tuple[str, ...]) -> list[str]:
    """The paths of the files with these endings in a folder and those within it, in order."""
    return [
        os.path.join(root, name)
        for root, _, names in sorted(os.walk(folder, followlinks=follow_links))
        for name in sorted(names)
        if name.lower().endswith(endings)
    ]


def _encoded(numbers: np.ndarray, mode: str | None, classes: int) -> np.ndarray:
    if mode == "binary":
        return numbers[:, None].astype(np.float32)
    return np.eye(classes, dtype=np.float32)[numbers] if mode == "categorical" else numbers


def _cropped(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of an image, in the proportions of ``size``."""
    height, width = image.shape[:2]
    high, wide = min(height, width * size[0] // size[1]), min(width, height * size[1] // size[0])
    top, left = (height - high) // 2, (width - wide) // 2
    return image[top : top + high, left : left + wide]


def _padded(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """A whole image in the middle of zeros."""
    height, width = image.shape[:2]
    ratio = max(width / size[1], height / size[0])
    high, wide = int(np.floor(height / ratio)), int(np.floor(width / ratio))
    out = np.zeros((*size, image.shape[2]), image.dtype)
    top, left = max((size[0] - high) // 2, 0), max((size[1] - wide) // 2, 0)
    out[top : top + high, left : left + wide] = images.resize(image, (high, wide), interpolation)
    return out
