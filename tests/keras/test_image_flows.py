"""ImageDataGenerator.flow_from_directory and flow_from_dataframe: batches of image files."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

pytest.importorskip("PIL")
image = tf.keras.preprocessing.image
Generator = image.ImageDataGenerator
SMALL = {"target_size": (3, 4), "shuffle": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of three and four images; the value of an image follows from its name."""
    root = tmp_path_factory.mktemp("images")
    for number, (name, count) in enumerate((("cats", 3), ("dogs", 4))):
        (root / name / "more").mkdir(parents=True)
        for i in range(count):
            place = root / name / ("more" if i == 2 else "")
            image.save_img(
                place / f"{i}.png", np.full((6, 8, 3), 10 * i + 100 * number), scale=False
            )
    (root / "cats" / "notes.txt").write_text("no image")
    return root


def values(batch):
    return batch[:, 0, 0, 0].tolist()


def test_files_of_a_folder(folder, capsys):
    flow = Generator().flow_from_directory(folder, batch_size=5, **SMALL)
    assert capsys.readouterr().out == "Found 7 images belonging to 2 classes.\n"
    assert isinstance(flow, image.DirectoryIterator)
    assert (flow.samples, flow.n, flow.num_classes, len(flow)) == (7, 7, 2, 2)
    assert flow.class_indices == {"cats": 0, "dogs": 1} and flow.image_shape == (3, 4, 3)
    assert flow.classes.tolist() == flow.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert flow.filenames[1:4] == ["cats/1.png", "cats/more/2.png", "dogs/0.png"]
    assert flow.filepaths[0] == str(folder / "cats" / "0.png")
    x, y = next(flow)
    assert x.shape == (5, 3, 4, 3) and x.dtype == y.dtype == np.float32
    assert values(x) == [0, 10, 20, 100, 110] and y.tolist() == [[1, 0]] * 3 + [[0, 1]] * 2
    assert values(next(flow)[0]) == [130, 120]


@pytest.mark.parametrize(
    ("mode", "target"), [("binary", [0, 1]), ("sparse", [0, 1]), ("input", None), (None, None)]
)
def test_class_modes(folder, mode, target):
    generator = Generator(rescale=0.1)
    flow = generator.flow_from_directory(folder, class_mode=mode, batch_size=7, **SMALL)
    batch = flow[0]
    x = batch if mode is None else batch[0]
    np.testing.assert_allclose(values(x), [0, 1, 2, 10, 11, 13, 12], rtol=1e-6)
    if mode == "input":
        np.testing.assert_array_equal(batch[1], x)
    elif target:
        assert batch[1].dtype == np.float32 and batch[1].tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_subsets_and_classes(folder, capsys):
    generator = Generator(validation_split=0.4, data_format="channels_first")
    found = {
        part: generator.flow_from_directory(folder, subset=part, color_mode="grayscale", **SMALL)
        for part in ("training", "validation")
    }
    assert found["validation"].filenames == ["cats/0.png", "dogs/0.png"]
    assert found["training"].samples == 5 and found["training"][0][0].shape == (5, 1, 3, 4)
    some = generator.flow_from_directory(folder, classes=["dogs"], color_mode="rgba", **SMALL)
    assert some.class_indices == {"dogs": 0} and some[0][0].shape == (4, 4, 3, 4)
    assert "Found 4 images belonging to 1 classes." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"class_mode": "raw"}, "Invalid class_mode: raw; expected one of"),
        ({"color_mode": "cmyk"}, "Invalid color mode: cmyk"),
        ({"subset": "some"}, "Invalid subset name: some"),
    ],
)
def test_wrong_words(folder, given, words):
    with pytest.raises(ValueError, match=words):
        Generator().flow_from_directory(folder, **given)
    with pytest.raises(FileNotFoundError):
        Generator().flow_from_directory(folder / "none")


def test_a_model_learns_from_a_folder(folder):
    def trained(seed):
        """The mean loss of epochs, and predictions."""
        flow = Generator(rescale=1 / 255, horizontal_flip=True).flow_from_directory(
            folder, (3, 4), class_mode="binary", batch_size=4, seed=seed
        )
        model = tf.keras.Sequential(
            [tf.keras.layers.Flatten(), tf.keras.layers.Dense(1, "sigmoid", False, "zeros")]
        )
        model.compile("sgd", "binary_crossentropy", run_eagerly=True)
        losses = model.fit(flow, epochs=2, verbose=0).history["loss"]
        plain = Generator(rescale=1 / 255).flow_from_directory(folder, **SMALL)
        return losses, model.predict(plain, verbose=0)

    (losses, first), (again, second), (_, other) = trained(1), trained(1), trained(2)
    assert losses[1] < losses[0] and losses == again and first.shape == (7, 1)
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def frame_of(folder, **columns):
    pandas = pytest.importorskip("pandas")
    names = ["cats/0.png", "dogs/1.png", "none.png", "dogs/0.png", "cats/1.png"]
    return pandas.DataFrame(
        {"filename": names, "class": ["cat", "dog", "cat", "dog", "owl"], **columns}
    )


def flow_of(folder, frame, **given):
    with pytest.warns(UserWarning, match='1 invalid image filename.s. in x_col="filename"'):
        return Generator().flow_from_dataframe(frame, folder, **SMALL, **given)


def test_files_of_a_frame(folder, capsys):
    frame = frame_of(folder, weight=[1.0, 2.0, 3.0, 4.0, 5.0])
    flow = flow_of(folder, frame, weight_col="weight", classes=["dog", "cat"], batch_size=2)
    said = "Found 3 validated image filenames belonging to 2 classes.\n"
    assert capsys.readouterr().out == said and len(frame) == 5
    assert flow.class_indices == {"dog": 0, "cat": 1} and flow.classes == [1, 0, 0]
    x, y, weight = flow[0]
    assert values(x) == [0, 110] and y.tolist() == [[0, 1], [1, 0]] and weight.tolist() == [1, 2]
    everything = flow_of(folder, frame, class_mode="sparse")
    assert everything[0][1].tolist() == [0, 1, 1, 2]
    with pytest.warns(UserWarning, match="invalid"):
        part = Generator(validation_split=0.5).flow_from_dataframe(
            frame, folder, subset="validation", class_mode=None, **SMALL
        )
    assert values(part[0]) == [0, 110]
    assert capsys.readouterr().out.endswith("Found 2 validated image filenames.\n")


def test_targets_of_a_frame(folder):
    several = [["a"], ["b", "a"], ["a"], ("b",), ["c"]]
    frame = frame_of(folder, several=several, u=[1, 2, 3, 4, 5], v=[0.5, 1, 1.5, 2, 2.5])
    flow = flow_of(folder, frame, y_col="several", classes=["a", "b"])
    assert flow[0][1].tolist() == [[1, 0], [1, 1], [0, 1]]
    raw = flow_of(folder, frame, y_col=["u", "v"], class_mode="raw")[0][1]
    np.testing.assert_array_equal(raw, [[1, 0.5], [2, 1], [4, 2], [5, 2.5]])
    both = flow_of(folder, frame, y_col=["u", "v"], class_mode="multi_output")[0][1]
    assert [each.tolist() for each in both] == [[1, 2, 4, 5], [0.5, 1, 2, 2.5]]
    with pytest.warns(DeprecationWarning, match="has_ext is deprecated"):
        flow_of(folder, frame, has_ext=True)
    with pytest.warns(DeprecationWarning, match='please use `class_mode="raw"`'):
        assert flow_of(folder, frame, y_col="u", class_mode="other").class_mode == "raw"


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"y_col": "u", "class_mode": "sparse"}, TypeError, 'y_col="u" column values must be str'),
        ({"y_col": "u"}, TypeError, "string, list or tuple"),
        ({"class_mode": "binary"}, ValueError, "must be 2 classes. Found 3"),
        ({"class_mode": "multi_output"}, TypeError, "y_col must be a list. Received str"),
        ({"weight_col": "class"}, TypeError, "weight_col=class must be numeric"),
        ({"x_col": "u"}, TypeError, "x_col=u must be strings"),
        ({"some": 1}, TypeError, "unexpected keyword argument 'some'"),
    ],
)
def test_columns_that_do_not_fit(folder, given, error, words):
    with pytest.raises(error, match=words):
        Generator().flow_from_dataframe(frame_of(folder, u=[1, 2, 3, 4, 5]), folder, **given)
