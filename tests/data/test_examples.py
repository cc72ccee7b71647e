"""Examples: the messages, what is read of them, and tensors as bytes, as TensorFlow has them."""

import sys

import numpy as np
import pytest

import distgrad as tf
from distgrad.data import Dataset, messages

pytest.importorskip("google.protobuf")

io, Fixed, Sequence = tf.io, tf.io.FixedLenFeature, tf.io.FixedLenSequenceFeature


def ints(*values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def floats(*values):
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def texts(*values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def example(**features):
    made = tf.train.Example(features=tf.train.Features(feature=features))
    return made.SerializeToString(deterministic=True)


def sequence(context, **lists):
    lists = {key: tf.train.FeatureList(feature=steps) for key, steps in lists.items()}
    return tf.train.SequenceExample(
        context=tf.train.Features(feature=context),
        feature_lists=tf.train.FeatureLists(feature_list=lists),
    ).SerializeToString()


def test_messages_are_tensorflows_to_the_byte():
    # What TensorFlow 2.21 writes.
    written = (
        b"\n9\n\x14\n\x01a\x12\x0f\x1a\r\n\x0b\x01\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
        b"\n\x0e\n\x01b\x12\t\n\x07\n\x02x\xff\n\x01t\n\x11\n\x01f\x12\x0c\x12\n\n\x08"
        b"\xcd\xcc\xcc=\x00\x00\x00@"
    )
    assert example(b=texts(b"x\xff", b"t"), a=ints(1, -2), f=floats(0.1, 2)) == written
    read = tf.train.Example.FromString(written)
    again = tf.train.Example()
    again.ParseFromString(written)
    assert read == again and str(read.features.feature["a"].int64_list) == "value: 1\nvalue: -2\n"
    assert {key: f.WhichOneof("kind") for key, f in read.features.feature.items()} == {
        "a": "int64_list",
        "b": "bytes_list",
        "f": "float_list",
    }
    assert read.features.feature["b"].bytes_list.value[0] == b"x\xff"


def test_values_of_messages_come_from_arrays_and_datasets():
    (text,) = Dataset.from_tensor_slices(["ä"])
    (raw,) = Dataset.from_tensor_slices([b"\xff\0"])
    assert texts(text, raw, b"x").bytes_list.value == ["ä".encode(), b"\xff\0", b"x"]
    made = ints(*np.arange(2), tf.constant(2), *tf.constant([3, 4]))
    assert made.int64_list.value == [0, 1, 2, 3, 4]
    assert floats(np.float32(0.5), tf.constant(2.0)).float_list.value == [0.5, 2.0]
    again = tf.train.BytesList.FromString(texts(b"x").bytes_list.SerializeToString())
    assert again.value == [b"x"]
    for wrong in (lambda: ints(1.5), lambda: texts(1), lambda: floats("a")):
        with pytest.raises(TypeError):
            wrong()


ONE = example(x=ints(1, 2, 3, 4), y=floats(0.5), z=texts(b"a\xff", b""), empty=ints())
FEATURES = {
    "z": Fixed([2], tf.string),
    "x": Fixed((2, 2), tf.int64),
    "y": Fixed([], tf.float32),
    "flat": Fixed(1, tf.int64, [7]),
    "text": Fixed([], tf.string, "none"),
    "two": Fixed([2], tf.float32, np.zeros(2)),
    "all": Sequence([2], tf.int64, allow_missing=True),
    "none": Sequence([2], tf.string, True, "-"),
}


def test_the_features_of_one_example():
    found = io.parse_single_example(
        example(x=ints(1, 2, 3, 4), y=floats(0.5), z=texts(b"a\xff", b""), all=ints(1, 2, 3, 4)),
        FEATURES,
    )
    assert list(found) == sorted(FEATURES)
    assert {
        key: (tuple(v.shape), v.numpy().tolist()) for key, v in found.items() if key != "text"
    } == {
        "all": ((2, 2), [[1, 2], [3, 4]]),
        "flat": ((1,), [7]),
        "none": ((0, 2), []),
        "two": ((2,), [0.0, 0.0]),
        "x": ((2, 2), [[1, 2], [3, 4]]),
        "y": ((), 0.5),
        "z": ((2,), [b"a\xff", b""]),
    }
    assert found["text"].numpy() == b"none" and found["text"].shape == ()
    assert [found[key].dtype for key in ("x", "y", "two")] == [tf.int64, tf.float32, tf.float32]
    assert tf.string == found["z"].dtype
    assert repr(FEATURES["y"]) == "FixedLenFeature(shape=[], dtype=tf.float32, default_value=None)"


def test_a_vector_of_examples_fills_up_the_shorter_ones():
    rows = [example(x=ints(1, 2, 3), t=texts(b"a")), example(x=ints(4), t=texts(b"b", b"c")), b""]
    wanted = {
        "x": Sequence([], tf.int64, allow_missing=True, default_value=-1),
        "t": Sequence([], tf.string, allow_missing=True),
        "y": Fixed([2], tf.float32, [1.0, 2.0]),
    }
    found = io.parse_example(rows, wanted)
    assert found["x"].numpy().tolist() == [[1, 2, 3], [4, -1, -1], [-1, -1, -1]]
    assert found["t"].numpy().tolist() == [[b"a", b""], [b"b", b"c"], [b"", b""]]
    assert found["y"].numpy().tolist() == [[1.0, 2.0]] * 3
    (batch,) = Dataset.from_tensor_slices(rows).batch(3).map(lambda s: io.parse_example(s, wanted))
    (padded,) = (
        Dataset.from_tensor_slices(rows)
        .map(lambda s: io.parse_single_example(s, wanted))
        .padded_batch(3, padding_values={"x": -1, "t": "", "y": 0.0})
    )
    for key, value in found.items():
        assert batch[key].numpy().tolist() == padded[key].numpy().tolist() == value.numpy().tolist()
    assert io.parse_example(ONE, {"y": Fixed([], tf.float32)})["y"].shape == ()


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        (
            {"no": Fixed([], tf.int64)},
            r"Feature: no \(data type: int64\) is required but could not",
        ),
        ({"x": Fixed([4], tf.float32)}, "Key: x.  Data types don't match. Data type: int64 but"),
        ({"y": Fixed([], tf.int64, 1)}, "Data type: float32 but expected type: int64"),
        ({"x": Fixed([3], tf.int64)}, r"Values size: 4 but output shape: \[3\]"),
        ({"empty": Fixed([2], tf.int64)}, "Values size: 0"),
        ({"x": Sequence([3], tf.int64, True)}, "not a multiple of stride length. Saw 4"),
        ({"no": Fixed([2], tf.int64, 0)}, "the default has 1 values"),
        ({"x": Fixed([4], tf.int32)}, "not int32"),
    ],
)
def test_features_that_are_not_there(feature, words):
    error = tf.errors.InvalidArgumentError
    with pytest.raises(error, match=words):
        io.parse_single_example(ONE, feature)
    with pytest.raises(error, match=words):
        io.parse_example([ONE], feature)


def test_errors_name_the_example():
    with pytest.raises(tf.errors.InvalidArgumentError, match="Name: b, Index: 1, Feature: x"):
        io.parse_example([ONE, b""], {"x": Fixed([4], tf.int64)}, example_names=["a", "b"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="Name: <unknown>, Index: 1, Key: x"):
        io.parse_example([ONE, example(x=floats(1))], {"x": Fixed([4], tf.int64)})


@pytest.mark.parametrize(
    ("given", "features", "error", "words"),
    [
        (
            b"garbage",
            {"x": Fixed([4], tf.int64)},
            tf.errors.InvalidArgumentError,
            "Could not parse",
        ),
        (ONE[:-2], {"x": Fixed([4], tf.int64)}, tf.errors.InvalidArgumentError, "Could not parse"),
        ([[ONE]], {"x": Fixed([4], tf.int64)}, tf.errors.InvalidArgumentError, "scalar or vector"),
        (3, {"x": Fixed([4], tf.int64)}, tf.errors.InvalidArgumentError, "given as its bytes"),
        (ONE, {}, ValueError, "cannot be None or falsy"),
        (ONE, {"x": 3}, ValueError, "Unsupported int 3 for key 'x'"),
        (ONE, {"x": Sequence([], tf.int64)}, ValueError, "allow_missing to be True"),
        (ONE, {"x": Fixed([None, 2], tf.int64)}, ValueError, "FixedLenSequenceFeature"),
        (ONE, {"x": Fixed(None, tf.int64)}, ValueError, "Missing shape"),
        (ONE, {"no": Fixed([], tf.int64, 2.5)}, TypeError, "2.5 is not of dtype int64"),
    ],
)
def test_what_is_no_example(given, features, error, words):
    with pytest.raises(error, match=words):
        io.parse_example(given, features)


def test_sequences():
    rows = [
        sequence({"n": ints(2)}, x=[floats(1, 2), floats(3, 4)], t=[texts(b"a"), texts(b"b")]),
        sequence({"n": ints(1)}, x=[floats(5, 6)], t=[texts(b"c")]),
        sequence({"n": ints(0)}),
    ]
    context = {"n": Fixed([], tf.int64)}
    steps = {"x": Sequence([2], tf.float32, True), "t": Sequence([], tf.string, True)}
    found, lists, lengths = io.parse_sequence_example(rows, context, steps)
    assert found["n"].numpy().tolist() == lengths["x"].numpy().tolist() == [2, 1, 0]
    assert lists["x"].numpy().tolist() == [[[1, 2], [3, 4]], [[5, 6], [0, 0]], [[0, 0], [0, 0]]]
    assert lists["t"].numpy().tolist() == [[b"a", b"b"], [b"c", b""], [b"", b""]]
    found, lists = io.parse_single_sequence_example(rows[0], context, steps)
    assert found["n"].numpy() == 2 and lists["x"].numpy().tolist() == [[1, 2], [3, 4]]
    assert io.parse_single_sequence_example(rows[2], None, steps)[1]["x"].shape == (0, 2)
    for given, wanted, words in [
        (rows[2], {"x": Sequence([2], tf.float32)}, "Feature list: x is required"),
        (rows[0], {"x": Sequence([1], tf.float32)}, "Feature list: x, Index: 0.  Number of values"),
        (rows[0], {"x": Sequence([2], tf.int64)}, "Data types don't match"),
    ]:
        with pytest.raises(tf.errors.InvalidArgumentError, match=words):
            io.parse_single_sequence_example(given, None, wanted)
    for wanted in ({"x": Fixed([2], tf.float32)}, {"x": Sequence([2], tf.float32, True, 9.0)}, {}):
        with pytest.raises(ValueError):
            io.parse_single_sequence_example(rows[0], None, wanted)
    with pytest.raises(ValueError, match="must be a scalar"):
        io.parse_single_sequence_example(rows, context)


# What tf.io.serialize_tensor of TensorFlow 2.21 gives for [1, 2].
SERIALIZED = {
    "int32": b'\x08\x03\x12\x04\x12\x02\x08\x02"\x08\x01\x00\x00\x00\x02\x00\x00\x00',
    "uint8": b'\x08\x04\x12\x04\x12\x02\x08\x02"\x02\x01\x02',
    "float16": b'\x08\x13\x12\x04\x12\x02\x08\x02"\x04\x00<\x00@',
    "bfloat16": b'\x08\x0e\x12\x04\x12\x02\x08\x02"\x04\x80?\x00@',
    "uint16": b'\x08\x11\x12\x04\x12\x02\x08\x02"\x04\x01\x00\x02\x00',
    "complex64": b'\x08\x08\x12\x04\x12\x02\x08\x02"\x10\x00\x00\x80?\x00\x00\x00\x00\x00\x00\x00@'
    b"\x00\x00\x00\x00",
}


@pytest.mark.parametrize("name", SERIALIZED)
def test_tensors_are_tensorflows_to_the_byte(name):
    tensor = tf.cast(tf.constant([1, 2]), name)
    assert io.serialize_tensor(tensor).numpy() == SERIALIZED[name]
    found = io.parse_tensor(SERIALIZED[name], name)
    assert found.dtype == name and found.numpy().tolist() == [1, 2]


def test_tensors_of_all_kinds_come_back():
    for name in (*messages_dtypes(), "string"):
        given = np.array([["a", "b\xff"]]) if name == "string" else tf.cast([[1, 0]], name)
        data = io.serialize_tensor(given)
        found = io.parse_tensor(data, tf.string if name == "string" else name)
        assert found.shape == (1, 2)
        if name != "string":
            assert found.dtype == name and found.numpy().tolist() == given.numpy().tolist()
    assert found.numpy().tolist() == [[b"a", "b\xff".encode()]]
    scalar = io.parse_tensor(io.serialize_tensor(3.0), tf.float32)
    assert scalar.numpy() == 3 and scalar.shape == ()
    assert io.parse_tensor(io.serialize_tensor(tf.zeros([0, 3])), tf.float32).shape == (0, 3)
    for wrong, words in [
        (SERIALIZED["int32"], r"parsed tensor \(int32\) and dtype \(float32\)"),
        (b"garbage", "Could not parse"),
        ([SERIALIZED["int32"]], "to be a scalar"),
        (b'\x08\x01\x12\x04\x12\x02\x08\x02"\x04\x00\x00\x80?', "has not the values"),
    ]:
        with pytest.raises(tf.errors.InvalidArgumentError, match=words):
            io.parse_tensor(wrong, tf.float32)


def messages_dtypes():
    from distgrad.data.serialized import _DTYPES

    return [name for name in _DTYPES if name != "string"]


@pytest.mark.parametrize(
    ("data", "dtype", "values"),
    [  # as tf.make_tensor_proto has them
        (
            b"\x08\x01\x12\x08\x12\x02\x08\x02\x12\x02\x08\x02*\x04\x00\x00\xc0?",
            "float32",
            [[1.5] * 2] * 2,
        ),
        (b"\x08\x13\x12\x00j\x02\x80|", "float16", 1.5),
        (b"\x08\x08\x12\x00J\x08\x00\x00\x80?\x00\x00\x00@", "complex64", 1 + 2j),
        (b"\x08\t\x12\x00R\x01\x03", "int64", 3),
        (b"\x08\x07\x12\x04\x12\x02\x08\x02", "string", [b"", b""]),
    ],
)
def test_values_may_lie_one_by_one(data, dtype, values):
    assert io.parse_tensor(data, dtype).numpy().tolist() == values


def test_raw_bytes_of_many():
    found = io.decode_raw([b"abcd", b"efgh"], tf.uint16)
    assert found.numpy().tolist() == [[25185, 25699], [26213, 26727]]
    assert io.decode_raw([[b"abcd"], [b"ef"]], tf.uint8, fixed_length=3).shape == (2, 1, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[2, 4\]"):
        io.decode_raw([b"abcd", b"ef"], tf.uint8)


def test_batches_of_files_of_examples(tmp_path):
    for part in range(2):
        with tf.io.TFRecordWriter(tmp_path / f"{part}.tfrecord") as writer:
            for number in range(5):
                writer.write(example(x=ints(5 * part + number), y=floats(part)))
    features = {"x": Fixed([], tf.int64), "y": Fixed([], tf.float32)}
    make = tf.data.experimental.make_batched_features_dataset
    data = make(str(tmp_path / "*"), 4, features, label_key="y", num_epochs=1, shuffle=False)
    assert [(d["x"].numpy().tolist(), y.numpy().tolist()) for d, y in data] == [
        ([0, 1, 2, 3], [0, 0, 0, 0]),
        ([4, 5, 6, 7], [0, 1, 1, 1]),
        ([8, 9], [1, 1]),
    ]
    endless = make([str(tmp_path / "0*"), str(tmp_path / "1*")], 4, features, shuffle_seed=1)
    seen = np.concatenate([batch["x"].numpy() for batch in endless.take(5)])
    assert sorted(seen.tolist()) == sorted([*range(10)] * 2)
    with pytest.raises(ValueError, match="label_key"):
        make(str(tmp_path / "*"), 4, features, label_key="z")
    with pytest.raises(ValueError, match="No files match"):
        make(str(tmp_path / "none*"), 4, features)


def test_texts_of_examples_become_numbers():
    rows = [example(t=texts(text.encode())) for text in ("bad", "good äh", "äh")]
    wanted = {"t": Fixed([], tf.string)}
    data = Dataset.from_tensor_slices(rows).map(lambda s: io.parse_single_example(s, wanted)["t"])
    assert data.element_spec == tf.TensorSpec((), tf.string)
    words = tf.keras.layers.TextVectorization(output_sequence_length=2)
    words.adapt(data.batch(2))
    assert words.get_vocabulary() == ["", "[UNK]", "äh", "good", "bad"]
    assert [row.numpy().tolist() for row in data.map(words)] == [[4, 0], [3, 2], [2, 0]]
    assert [row.numpy().tolist() for row in data.batch(3).map(words)] == [[[4, 0], [3, 2], [2, 0]]]
    assert [bool(tf.equal(text, "äh")) for text in data] == [False, False, True]
    assert [text == "bad" for text in data] == [True, False, False]
    (longest,) = data.filter(lambda text: tf.strings.length(text) > 3)
    assert str(tf.strings.upper(longest, encoding="utf-8")) == "GOOD ÄH"


def test_a_function_decodes_the_images_of_a_batch():
    pytest.importorskip("PIL")
    images = [io.encode_png(np.full((2, 3, 1), number, np.uint8)) for number in (5, 7)]
    rows = [example(i=texts(image), n=ints(len(image.numpy()))) for image in images]
    wanted = {"i": Fixed([], tf.string), "n": Fixed([], tf.int64)}

    def decoded(batch):
        found = io.parse_example(batch, wanted)
        assert found["n"].numpy().tolist() == tf.strings.length(found["i"]).numpy().tolist()
        return tf.map_fn(io.decode_png, found["i"], fn_output_signature=tf.uint8)

    (pixels,) = Dataset.from_tensor_slices(rows).batch(2).map(decoded)
    assert pixels.shape == (2, 2, 3, 1) and pixels[:, 0, 0, 0].numpy().tolist() == [5, 7]


def test_what_is_known_of_examples_before_there_is_one():
    rows = tf.data.TFRecordDataset("none")
    one, steps = {"n": Fixed([2], tf.int64)}, {"t": Sequence([], tf.string, True)}
    known, text = tf.TensorSpec([2], tf.int64), tf.TensorSpec([None], tf.string)

    def raw(row):
        return io.decode_raw(io.parse_single_example(row, {"r": Fixed([], tf.string)})["r"], float)

    found = rows.map(lambda row: io.parse_single_example(row, {**one, **steps}))
    assert found.element_spec == {"n": known, "t": text}
    many = rows.batch(3, drop_remainder=True).map(lambda s: io.parse_example(s, {**one, **steps}))
    assert many.element_spec == {
        "n": tf.TensorSpec([3, 2], tf.int64),
        "t": tf.TensorSpec([3, None], tf.string),
    }
    assert rows.map(raw).element_spec == tf.TensorSpec([None], tf.float32)
    pairs = rows.map(lambda row: io.parse_single_sequence_example(row, one, steps))
    assert pairs.element_spec == ({"n": known}, {"t": text})


def test_bytes_that_are_no_texts_pass_through_functions():
    def made(number):
        return example(x=ints(*range(int(number), -1, -1)))

    def called(number):
        return tf.reshape(tf.py_function(made, [number], tf.string), [])

    wanted = [example(x=ints(*range(n, -1, -1))) for n in range(3)]
    rows = [
        Dataset.range(3).map(called),
        Dataset.from_generator(lambda: map(made, range(3)), output_types=tf.string),
        Dataset.range(3).map(lambda number: tf.expand_dims(called(number), 0)).unbatch(),
        Dataset.from_tensor_slices(wanted),
    ]
    features = {"x": Sequence([], tf.int64, True)}
    for each in rows:
        assert [row.numpy() for row in each] == wanted
        (batch,) = each.batch(3)
        assert batch.numpy().tolist() == wanted and batch.dtype == tf.string
        parsed = io.parse_example(batch, features)["x"].numpy()
        assert parsed.tolist() == [[0, 0, 0], [1, 0, 0], [2, 1, 0]]


def test_without_protobuf_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    messages.message.cache_clear()
    try:
        for use in (lambda: tf.train.Example, lambda: io.parse_example(ONE, FEATURES)):
            with pytest.raises(ImportError, match=r"pip install 'distgrad\[records\]'"):
                use()
    finally:
        messages.message.cache_clear()
