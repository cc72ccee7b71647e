"""keras.utils for images, folders, series, files, progress and pictures of models."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf
from distgrad.core.errors import DataError, MissingExtraError

keras = tf.keras
utils = keras.utils
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of three images each; what they hold follows from their names."""
    pytest.importorskip("PIL")
    root = tmp_path_factory.mktemp("images")
    for number, name in enumerate(("cats", "dogs")):
        (root / name).mkdir()
        for i in range(3):
            image = np.full((6 + i, 8, 3), 10 * i + 100 * number)
            utils.save_img(root / name / f"{i}.png", image, scale=False)
    (root / "cats" / "notes.txt").write_text("no image")
    return root


def test_images_and_arrays(tmp_path):
    pytest.importorskip("PIL")
    array = RNG.integers(0, 255, (5, 4, 3)).astype("float32")
    array[0, 0], array[0, 1] = 0, 255
    image = utils.array_to_img(array)
    assert image.size == (4, 5) and image.mode == "RGB"
    np.testing.assert_array_equal(utils.img_to_array(image), array)
    first = utils.img_to_array(image, data_format="channels_first")
    np.testing.assert_array_equal(first, array.transpose(2, 0, 1))
    utils.save_img(tmp_path / "a.png", array)
    np.testing.assert_array_equal(utils.img_to_array(utils.load_img(tmp_path / "a.png")), array)
    gray = utils.load_img(io.BytesIO((tmp_path / "a.png").read_bytes()), color_mode="grayscale")
    assert gray.mode == "L" and utils.img_to_array(gray).shape == (5, 4, 1)
    small = utils.load_img(tmp_path / "a.png", target_size=(2, 3), interpolation="bilinear")
    assert small.size == (3, 2)
    for call in (
        lambda: utils.array_to_img(array[0]),
        lambda: utils.array_to_img(np.ones((2, 2, 5))),
        lambda: utils.load_img(tmp_path / "a.png", color_mode="cmyk"),
        lambda: utils.load_img(tmp_path / "a.png", target_size=(2, 2), interpolation="cubist"),
    ):
        with pytest.raises(ValueError):
            call()
    assert keras.preprocessing.image.load_img is utils.load_img


def test_smart_resize_cuts_the_middle_out():
    resize = keras.preprocessing.image.smart_resize
    x = RNG.uniform(size=(2, 4, 9, 3)).astype("float32")
    np.testing.assert_array_equal(resize(x, (4, 4)), x[:, :, 2:6])
    np.testing.assert_array_equal(resize(x[0], (2, 9)), x[0, 1:3])
    first = resize(tf.constant(x.transpose(0, 3, 1, 2)), (4, 4), data_format="channels_first")
    np.testing.assert_array_equal(first.numpy(), x[:, :, 2:6].transpose(0, 3, 1, 2))
    halved = resize(x[..., :8, :], (2, 4), "nearest")
    np.testing.assert_array_equal(halved, tf.image.resize(x[..., :8, :], (2, 4), "nearest"))
    assert isinstance(halved, np.ndarray)
    for wrong, size, words in ((x, (2, 2, 2), "tuple of 2 integers"), (x[0, 0], (2, 2), "rank")):
        with pytest.raises(ValueError, match=words):
            resize(wrong, size)


def test_a_folder_is_a_dataset(folder, capsys):
    data = utils.image_dataset_from_directory(folder, image_size=(4, 4), batch_size=4, seed=1)
    assert "Found 6 files belonging to 2 classes" in capsys.readouterr().out
    assert data.class_names == ["cats", "dogs"] and len(data.file_paths) == 6
    images, labels = (
        np.concatenate(parts) for parts in zip(*data.as_numpy_iterator(), strict=True)
    )
    assert images.shape == (6, 4, 4, 3) and images.dtype == np.float32 and labels.dtype == np.int32
    np.testing.assert_array_equal(images[:, 0, 0, 0] // 100, labels)
    assert sorted(images[:, 2, 2, 1]) == [0, 10, 20, 100, 110, 120]
    both = utils.image_dataset_from_directory(
        folder, image_size=4, seed=3, validation_split=0.34, subset="both", verbose=False,
        label_mode="categorical",
    )  # fmt: skip
    train, held = ({path[-10:] for path in part.file_paths} for part in both)
    assert (len(train), len(held)) == (4, 2) and not train & held
    assert next(iter(both[1]))[1].shape == (2, 2)
    plain = utils.image_dataset_from_directory(
        folder, labels=None, color_mode="grayscale", image_size=(4, 6), shuffle=False
    )
    assert next(iter(plain)).shape == (6, 4, 6, 1)
    padded = utils.image_dataset_from_directory(
        folder, image_size=(8, 8), pad_to_aspect_ratio=True, shuffle=False, label_mode="binary"
    )
    images, labels = next(iter(padded))
    assert labels.numpy().ravel().tolist() == [0, 0, 0, 1, 1, 1]
    assert images.numpy()[3, 0].max() == 0 and images.numpy()[3, 4].min() == 100
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    assert len(model.fit(data, epochs=2, verbose=0).history["loss"]) == 2


def test_images_of_a_folder_are_decoded_as_in_tensorflow(tmp_path):
    pytest.importorskip("PIL")
    image = np.array([[[0, 1, 2], [255, 0, 9], [7, 7, 7]]])
    utils.save_img(tmp_path / "x.png", image, scale=False)

    def loaded(**options):
        options = {"image_size": (1, 3), "verbose": False, "labels": None} | options
        return next(iter(utils.image_dataset_from_directory(tmp_path, **options)))[0]

    assert loaded(color_mode="grayscale").numpy().ravel().tolist() == [0, 77, 7]
    assert loaded().dtype == tf.float32
    for way in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "follow_links"):
        assert loaded(interpolation="nearest", **{way: True}).dtype == tf.uint8


def test_wrong_folders(folder, tmp_path):
    load = utils.image_dataset_from_directory
    for options, text in (
        ({"validation_split": 0.5}, "subset"),
        ({"validation_split": 0.5, "subset": "training"}, "seed"),
        ({"class_names": ["birds"]}, "did not match"),
        ({"labels": [1, 2]}, "same size"),
        ({"label_mode": "words"}, "label_mode"),
        ({"color_mode": "cmyk"}, "color_mode"),
        ({"crop_to_aspect_ratio": True, "pad_to_aspect_ratio": True}, "Only one"),
    ):
        with pytest.raises(ValueError, match=text):
            load(folder, verbose=False, **options)
    with pytest.raises(ValueError, match="No images found"):
        load(tmp_path, verbose=False)


@pytest.mark.parametrize(
    "options", [{}, {"sequence_stride": 2, "sampling_rate": 2}, {"start_index": 3, "end_index": 13}]
)
def test_windows_over_a_series(options):
    series, targets = RNG.normal(size=(15, 2)), np.arange(15)
    data = utils.timeseries_dataset_from_array(series, targets, 3, batch_size=4, **options)
    first, last = options.get("start_index", 0), options.get("end_index", 15)
    stride, rate = options.get("sequence_stride", 1), options.get("sampling_rate", 1)
    starts = range(first, last - 2 * rate, stride)
    windows, found = (np.concatenate(p) for p in zip(*data.as_numpy_iterator(), strict=True))
    wanted = np.stack([series[s : s + 3 * rate : rate] for s in starts])
    np.testing.assert_array_equal(windows, wanted)
    np.testing.assert_array_equal(found, targets[list(starts)])


def test_series_without_targets_shuffled_and_wrong():
    series = np.arange(10)
    data = utils.timeseries_dataset_from_array(series, None, 2, shuffle=True, seed=1)
    rows = np.concatenate(list(data.as_numpy_iterator()))
    assert sorted(rows[:, 0]) == list(range(9)) and (rows[:, 1] == rows[:, 0] + 1).all()
    assert rows[:, 0].tolist() != list(range(9))
    for options in ({"sequence_length": 0}, {"sequence_length": 2, "start_index": 10}):
        with pytest.raises(ValueError):
            utils.timeseries_dataset_from_array(series, None, **options)


def test_one_window_may_be_the_whole_series():
    (window,) = utils.timeseries_dataset_from_array([1.0, 2.0, 3.0], None, 3)
    assert window.dtype == tf.float32 and window.numpy().tolist() == [[1, 2, 3]]
    with pytest.raises(ValueError, match="3 rows"):
        utils.timeseries_dataset_from_array([1.0, 2.0, 3.0], None, 4)


def test_what_is_mixed_without_a_seed_is_mixed_alike_on_every_worker(folder):
    """Each is a process with random numbers of its own; together they share out each batch."""

    def mixed(worker):
        np.random.seed(worker)
        random.seed(worker)
        tf.random.set_seed(0)
        files = utils.image_dataset_from_directory(folder, image_size=4, verbose=False)
        series = utils.timeseries_dataset_from_array(np.arange(9), None, 2, shuffle=True)
        cut = utils.split_dataset(np.arange(9), left_size=5, shuffle=True)
        parts = [
            np.concatenate(list(series.as_numpy_iterator())),
            *(np.stack(list(part.as_numpy_iterator())) for part in cut),
        ]
        return files.file_paths, [part.tolist() for part in parts]

    assert mixed(1) == mixed(2)


def test_datasets_are_cut_in_two():
    left, right = utils.split_dataset(np.arange(10), left_size=0.7)
    assert [int(x) for x in left] == list(range(7)) and [int(x) for x in right] == [7, 8, 9]
    left, right = utils.split_dataset(np.arange(10), left_size=6, shuffle=True, seed=1)
    both = [int(x) for x in left], [int(x) for x in right]
    assert sorted([*both[0], *both[1]]) == list(range(10)) and len(both[1]) == 4
    assert both[0] != list(range(6))
    left, right = utils.split_dataset((np.arange(4), np.arange(4) * 2), right_size=1)
    assert [(int(a), int(b)) for a, b in right] == [(3, 6)]
    data = tf.data.Dataset.range(5)
    for shuffle in (False, True):
        left, right = utils.split_dataset(data, left_size=2, shuffle=shuffle, seed=0)
        for _ in range(2):  # again and again
            assert sorted([*map(int, left), *map(int, right)]) == [0, 1, 2, 3, 4]
    for options in ({}, {"left_size": 0}, {"left_size": 8, "right_size": 5}, {"left_size": 1.5}):
        with pytest.raises(ValueError):
            utils.split_dataset(np.arange(10), **options)
    with pytest.raises(TypeError):
        utils.split_dataset("abc", 0.5)


def test_batches_are_cut_between_their_samples():
    parts = utils.split_dataset(tf.data.Dataset.range(10).batch(3), left_size=0.8)
    assert [[batch.numpy().tolist() for batch in part] for part in parts] == [
        [[0, 1, 2], [3, 4, 5], [6, 7]],
        [[8, 9]],
    ]
    parts = utils.split_dataset(tf.data.Dataset.range(10).batch(3).prefetch(1), left_size=0.75)
    assert [len(list(part)) for part in parts] == [3, 1]  # elements, as in Keras


def test_files_come_once_and_are_checked(tmp_path, monkeypatch):
    source = tmp_path / "words.txt"
    source.write_text("one two")
    origin, cache = source.as_uri(), tmp_path / "cache"
    monkeypatch.setenv("KERAS_HOME", str(cache))
    assert utils.get_file(origin=origin) == str(cache / "datasets" / "words.txt")
    source.write_text("three")
    assert Path(utils.get_file(origin=origin, cache_dir=cache)).read_text() == "one two"
    md5, sha = (hashlib.new(kind, b"three").hexdigest() for kind in ("md5", "sha256"))
    for digest in (md5, sha):  # another hash: it comes again
        path = utils.get_file("w.txt", origin, file_hash=digest, cache_dir=cache)
        assert Path(path).read_text() == "three"
    (cache / "datasets" / "w.txt").write_text("broken")
    assert (
        Path(utils.get_file("w.txt", origin, md5_hash=md5, cache_dir=cache)).read_text() == "three"
    )
    with pytest.raises(DataError, match="MD5"):
        utils.get_file("x.txt", origin, md5_hash="0" * 32, cache_dir=cache)
    for options in ({}, {"fname": "a/b", "origin": origin}, {"origin": "http://x/"}):
        with pytest.raises(ValueError):
            utils.get_file(cache_dir=cache, **options)


@pytest.mark.parametrize("filtered", [True, False])
def test_archives_are_unpacked(filtered, tmp_path, monkeypatch):
    if not filtered:  # as before Python 3.11.4
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        info = tarfile.TarInfo("inside/x.txt")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"hi"))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("inside/x.txt", "hi")
    for name in ("a.tgz", "b.zip"):
        origin = (tmp_path / name).as_uri()
        folder = utils.get_file(origin=origin, extract=True, cache_dir=tmp_path / name[0])
        assert folder == str(tmp_path / name[0] / "datasets" / name)
        assert Path(f"{folder}/inside/x.txt").read_text() == "hi"
        assert utils.get_file(origin=origin, extract=True, cache_dir=tmp_path / name[0]) == folder
    (tmp_path / "c.zip").write_text("none")
    with pytest.raises(DataError, match="not an archive"):
        utils.get_file(origin=(tmp_path / "c.zip").as_uri(), extract=True, cache_dir=tmp_path / "c")


@pytest.mark.parametrize("filtered", [True, False])
@pytest.mark.parametrize("name", ["../outside.txt", "link"])
def test_archives_that_reach_outside_are_refused(name, filtered, tmp_path, monkeypatch):
    if not filtered:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        info = tarfile.TarInfo(name)
        if name == "link":
            info.type, info.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(info, io.BytesIO())
    with pytest.raises(DataError, match="cannot be unpacked"):
        utils.get_file(origin=(tmp_path / "a.tgz").as_uri(), extract=True, cache_dir=tmp_path / "c")
    assert not list(tmp_path.rglob("outside.txt")) and not list(tmp_path.rglob("link"))


def test_progress_of_ones_own_loop(capsys):
    bar = utils.Progbar(3, verbose=2, stateful_metrics=["now"])
    for step, value in enumerate((4.0, 2.0, 3.0)):
        bar.update(step + 1, [("mean", value), ("now", value)], finalize=False)
    bar.update(3, finalize=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("3/3 - 0s - ") and "mean: 3.0000 - now: 3.0000" in line
    bar = utils.Progbar(None, interval=0)
    bar.add(5, [("loss", 1e-5)])
    assert "5/Unknown" in (out := capsys.readouterr().out) and "loss: 1.0000e-05" in out
    utils.Progbar(2, verbose=0).update(2)
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="Only one"):
        utils.Progbar(1, stateful_metrics=[], stateless_metrics=[])


def test_models_are_drawn(tmp_path, monkeypatch):
    from distgrad.keras.utils import drawing

    given = keras.Input((4,), name="given")
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="deep")], name="inner")
    first = keras.layers.Dense(3, activation="relu", name="first")(given)
    both = keras.layers.Add(name="both")([first, inner(given)])
    model = keras.Model(given, both)
    drawn = []

    class Done:
        returncode, stderr = 0, ""

    def dot(command, input, **options):
        drawn.append((command, input))
        return Done

    monkeypatch.setattr(drawing.shutil, "which", lambda name: name)
    monkeypatch.setattr(drawing.subprocess, "run", dot)
    options = {"show_shapes": True, "show_layer_activations": True, "show_trainable": True}
    utils.plot_model(model, tmp_path / "m.svg", show_layer_names=True, **options)
    utils.plot_model(model, tmp_path / "m.png", show_layer_names=True, expand_nested=True)
    (command, flat), (_, nested) = drawn
    assert command[:2] == ["dot", "-Tsvg"]
    assert flat.count("->") == 4 and "deep" not in flat and "cluster" not in flat
    assert "<b>first</b> (Dense)" in flat and "<b>relu</b>" in flat and "(None, 3)" in flat
    assert "deep" in nested and "cluster" in nested and nested.count("->") == 4
    monkeypatch.setattr(drawing.shutil, "which", lambda name: None)
    with pytest.raises(MissingExtraError, match="graphviz"):
        utils.plot_model(model)
    with pytest.raises(ValueError, match="not yet been built"):
        utils.plot_model(keras.Sequential([keras.layers.Dense(1)]))


def test_small_helpers():
    assert utils.pack_x_y_sample_weight([1]) == ([1],) and utils.pack_x_y_sample_weight(1) == 1
    assert utils.pack_x_y_sample_weight(1, 2, 3) == (1, 2, 3)
    assert utils.unpack_x_y_sample_weight((1, 2)) == (1, 2, None)
    assert utils.is_keras_tensor(keras.Input((1,))) and not utils.is_keras_tensor(1)

    @utils.register_keras_serializable("tests", "mine")
    def function(x):
        return x

    assert utils.get_registered_name(function) == "tests>mine"
    assert utils.get_registered_object("tests>mine") is function
    assert utils.get_registered_name(len) == "len" and utils.get_registered_object("no") is None
    layer = utils.deserialize_keras_object(utils.serialize_keras_object(keras.layers.Dense(3)))
    assert layer.units == 3
    utils.disable_interactive_logging()
    assert not utils.is_interactive_logging_enabled()
    utils.enable_interactive_logging()
