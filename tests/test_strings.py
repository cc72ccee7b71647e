"""``tf.strings``: what TensorFlow 2.21 gives for these."""

import re

import numpy as np
import pytest

import distgrad as tf
from distgrad import keras

TEXTS = ["Hello World", "  ÄbC d ", ""]
GRID = [["a", "b"], ["c", "d"]]
S = tf.strings


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (S.lower(TEXTS), ["hello world", "  Äbc d ", ""]),
        (S.lower(TEXTS, encoding="utf-8"), ["hello world", "  äbc d ", ""]),
        (S.upper(TEXTS), ["HELLO WORLD", "  ÄBC D ", ""]),
        (S.strip(TEXTS), ["Hello World", "ÄbC d", ""]),
        (S.regex_replace(TEXTS, "[A-Z]", r"<\0>"), ["<H>ello <W>orld", "  Äb<C> d ", ""]),
        (S.regex_replace("hello, lol", "(l+)(o)", r"\2\1", replace_global=False), "heoll, lol"),
        (S.regex_replace(np.bytes_(b"a<br />b!"), "<br />", " "), "a b!"),
        (S.regex_full_match(TEXTS, "H.*d"), [True, False, False]),
        (S.length(TEXTS), [11, 9, 0]),
        (S.length(TEXTS, unit="UTF8_CHAR"), [11, 8, 0]),
        (S.substr(["abcdef", "xyz"], 1, 2), ["bc", "yz"]),
        (S.substr(["abcdef", "xyzw"], [-3, 0], [2, 1]), ["de", "x"]),
        (S.split("a b  c"), ["a", "b", "c"]),
        (S.split("a,b,,c", sep=","), ["a", "b", "", "c"]),
        (S.split("a b c d", maxsplit=1), ["a", "b c d"]),
        (S.unicode_split("aäb", "UTF-8"), ["a", "ä", "b"]),
        (S.bytes_split("abc"), ["a", "b", "c"]),
        (S.join(GRID, separator="-"), ["a-c", "b-d"]),
        (S.join(["p/", ["c", "d"]]), ["p/c", "p/d"]),
        (S.reduce_join(GRID), "abcd"),
        (S.reduce_join(GRID, 0), ["ac", "bd"]),
        (S.reduce_join(GRID, [0, 1], separator="."), "a.c.b.d"),
        (S.reduce_join(GRID, axis=-1, separator=" ", keepdims=True), [["a b"], ["c d"]]),
        (S.as_string([1, -20]), ["1", "-20"]),
        (S.as_string([1.5, 2e-7]), ["1.500000", "0.000000"]),
        (S.as_string([1.2345], precision=2), ["1.23"]),
        (S.as_string([1.5, 1e8], shortest=True), ["1.5", "1e+08"]),
        (S.as_string([True, False]), ["true", "false"]),
        (S.as_string([3], width=5, fill="0"), ["00003"]),
        (S.to_number(["3.5", "-2"]), [3.5, -2.0]),
        (S.to_number(["3", " 4"], tf.int32), [3, 4]),
        (S.to_hash_bucket_fast(["a", "hello"], 1000), [939, 296]),
        (S.to_hash_bucket_strong(["a", "hello"], 1000, [3, 5]), [511, 161]),
    ],
)
def test_values_are_those_of_tensorflow(made, expected):
    assert np.asarray(made).tolist() == expected


HASHED = [b"", b"a", "abcd", "abcdefgh", "hello world", "x" * 16, "x" * 17, "y" * 32, "é" * 30]


@pytest.mark.parametrize(
    ("hashed", "expected"),
    [
        (
            lambda texts: S.to_hash_bucket(texts, 2**62 + 1),
            [
                *(105434511174508089, 2996632905371535868, 404301170780174466),
                *(3429851175771700306, 936430787915428845, 1260831952859287913),
                *(4161156153655800115, 3874897754820414301, 2727032055171337287),
            ],
        ),
        (
            lambda texts: S.to_hash_bucket_fast(texts, 1000003),
            [377723, 291400, 267500, 229479, 234754, 762252, 200771, 687547, 457648],
        ),
        (
            lambda texts: S.to_hash_bucket_strong(texts, 1000003, [1, 2]),
            [383377, 332029, 62521, 19760, 598105, 592428, 637230, 388234, 941959],
        ),
    ],
)
def test_hashes_are_those_of_tensorflow(hashed, expected):
    assert hashed(HASHED).numpy().tolist() == expected


def test_hashes_of_bytes_and_wrong_arguments():
    assert S.to_hash_bucket_fast(b"\xff\xfe", 1000003).numpy() == 56067
    for wrong in (
        lambda: S.to_hash_bucket("a", 0),
        lambda: S.to_hash_bucket_fast("a", -1),
        lambda: S.to_hash_bucket_strong("a", 0, [1, 2]),
        lambda: S.to_hash_bucket_strong("a", 3, [1]),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError):
            wrong()


def test_texts_of_several_rows_are_split_into_ragged_rows():
    assert [row.tolist() for row in S.split(["a b", "c"])] == [["a", "b"], ["c"]]
    assert S.bytes_split(["ä", "b"]).to_list() == [[b"\xc3", b"\xa4"], [b"b"]]


def test_rows_of_unequal_lengths_are_filled_up_by_to_tensor():
    rows = S.split(["a,b", "c", "d,e,f"], ",")
    assert rows.to_tensor().tolist() == [["a", "b", ""], ["c", "", ""], ["d", "e", "f"]]
    two = rows.to_tensor("none", shape=(None, 2))
    assert two.tolist() == [["a", "b"], ["c", "none"], ["d", "e"]]
    nested = S.split([["a b", "c"], ["d", "e"]]).to_tensor("-")
    assert nested.tolist() == [[["a", "b"], ["c", "-"]], [["d", "-"], ["e", "-"]]]
    numbers = S.to_number(S.split(["1,2", "3"], ","), tf.int32).to_tensor(-1)
    assert numbers.dtype == tf.int32 and numbers.numpy().tolist() == [[1, 2], [3, -1]]
    assert S.unicode_decode(["ab", "c"], "UTF-8").to_tensor().numpy().tolist() == [
        [97, 98],
        [99, 0],
    ]


def test_numpy_gives_bytes():
    assert S.lower("Ä").numpy().decode() == "Ä"
    assert S.join([["a"], ["ö"]]).numpy().tolist() == ["aö".encode()]
    assert S.length("ab").numpy() == 2


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="unit must be 'BYTE' or 'UTF8_CHAR', not 'char'"):
        S.length("a", unit="char")
    with pytest.raises(ValueError, match="could not convert string to float"):
        S.to_number("a")
    with pytest.raises(ValueError, match="an array of texts is needed"):
        S.lower([1, 2])
    with pytest.raises(re.error):
        S.regex_replace("a", "(", "")


def test_a_standardization_of_one_s_own():  # as listings of keras.io write it
    def standardize(text):
        text = tf.strings.regex_replace(tf.strings.lower(text), "<br />", " ")
        return tf.strings.regex_replace(text, r"([!.])", r" \1")

    layer = keras.layers.TextVectorization(
        standardize=standardize, split=tf.strings.split, vocabulary=["good", "film", "!"]
    )
    texts = tf.data.Dataset.from_tensor_slices(["Good<br />film!", "film"]).batch(2)
    (numbers,) = texts.map(lambda t: layer(tf.expand_dims(t, -1)))
    assert numbers.numpy().tolist() == [[2, 3, 4], [3, 0, 0]]


def test_characters_have_numbers():
    one = S.unicode_decode("a\u30a2\U0001f986", "UTF-8")
    assert one.dtype == "int32" and one.numpy().tolist() == [97, 0x30A2, 0x1F986]
    rows = S.unicode_decode(np.array(["ab", ""]), "UTF-8")
    assert [row.numpy().tolist() for row in rows] == [[97, 98], []]


def test_encodings():  # TensorFlow's tutorial on Unicode
    text = "\u8bed\u8a00"
    wide = S.unicode_transcode(text, "UTF8", "UTF-16-BE")
    assert wide.numpy() == text.encode("utf-16-be")
    assert S.unicode_transcode(wide, "UTF-16-BE", "UTF-8").numpy() == text.encode()
    assert S.unicode_decode(wide, "UTF-16-BE").numpy().tolist() == [0x8BED, 0x8A00]
    assert [str(each) for each in S.unicode_split(wide, "UTF-16-BE")] == list(text)
    assert S.unicode_encode([[99, 97], [100]], "UTF-8").numpy().tolist() == [b"ca", b"d"]
    assert S.unicode_encode(tf.constant([65, 66]), "UTF-16-BE").numpy() == b"\x00A\x00B"
    assert str(S.unicode_encode([65, 0xD800])) == "A\ufffd"
    assert str(S.unicode_encode([65, 0xD800], errors="ignore")) == "A"
    numbers, offsets = S.unicode_decode_with_offsets("a\u8bed\U0001f388b", "UTF-8")
    assert numbers.numpy().tolist() == [97, 0x8BED, 0x1F388, 98]
    assert offsets.dtype == "int64" and offsets.numpy().tolist() == [0, 1, 4, 8]
    assert S.substr("a\U0001f60a", 1, 1).numpy() == b"\xf0"  # a part of a character
    assert S.substr("ab", 2, 1).numpy() == b""
    with pytest.raises(tf.errors.InvalidArgumentError, match="pos -3 out of range"):
        S.substr("ab", -3, 1)
    assert S.unicode_decode(b"a\xff", "UTF-8", replacement_char=63).numpy().tolist() == [97, 63]
    with pytest.raises(tf.errors.InvalidArgumentError, match="no text in UTF-8"):
        S.unicode_decode(b"a\xff", "UTF-8", errors="strict")
    with pytest.raises(tf.errors.InvalidArgumentError, match="no character"):
        S.unicode_encode([0xD800], errors="strict")


def test_a_template_is_filled_in():
    shown = tf.strings.format("a {} b {}", (tf.constant([1, 2]), 3))
    assert shown.numpy() == b"a [1 2] b 3"
    matrix = tf.reshape(tf.range(16.0), (4, 4))
    assert tf.strings.format("{}", matrix, summarize=1) == "[[0 ... 3]\n ...\n [12 ... 15]]"
    texts = (tf.constant("abc"), tf.constant(["a", "b"]))
    assert tf.strings.format("%d-%d", texts, placeholder="%d") == '"abc"-["a" "b"]'
    with pytest.raises(ValueError, match="1 placeholders '{}' for 2 inputs"):
        tf.strings.format("{}", (1, 2))


@pytest.mark.parametrize(
    ("row", "width", "how", "wanted"),  # as TensorFlow 2.21 gives them
    [
        (["a", "b", "c"], 2, {}, ["a b", "b c"]),
        (["a", "b", "c"], [1, 2], {"separator": "-"}, ["a", "b", "c", "a-b", "b-c"]),
        (["a", "b"], 3, {}, []),
        (["a", "b"], 3, {"preserve_short_sequences": True}, ["a b"]),
        (["a"], 3, {"pad_values": ("<", ">")}, ["< < a", "< a >", "a > >"]),
        (["a"], 3, {"pad_values": "_", "padding_width": 1}, ["_ a _"]),
        ([], 2, {"pad_values": ("<", ">")}, []),
        ([["a", "b"], ["c", "d"]], 2, {}, [["a b"], ["c d"]]),
    ],
)
def test_neighbours_are_joined(row, width, how, wanted):
    found = tf.strings.ngrams(tf.constant(row, tf.string), width, **how)
    assert found.tolist() == wanted
    assert found.shape == np.shape(wanted)


def test_rows_of_unequal_lengths_and_wrong_widths():
    rows = tf.strings.ngrams(tf.strings.split(["a b c", "d"]), 2)
    assert [row.tolist() for row in rows] == [["a b", "b c"], []]
    with pytest.raises(ValueError, match="1 or more, got 0"):
        tf.strings.ngrams(["a"], 0)
    with pytest.raises(ValueError, match="rows of texts"):
        tf.strings.ngrams("a", 1)


def test_texts_where_numbers_are_more_common():
    texts = tf.constant(["b", "a", "b"])
    assert tf.as_string(3).numpy() == b"3"
    assert tf.identity(texts).tolist() == texts.tolist()
    assert tf.cast(texts, tf.string).tolist() == texts.tolist()
    assert tf.cast("a", "string").numpy() == b"a"
    with pytest.raises(TypeError, match="no tensor holds texts"):
        tf.cast(1.0, tf.string)
    assert tf.zeros_like(texts).tolist() == ["", "", ""]
    assert tf.zeros_like(tf.constant([b"\xff"])).numpy().tolist() == [b""]
    found = tf.unique_with_counts(texts)
    assert found.y.tolist() == ["b", "a"]
    assert (found.idx.numpy().tolist(), found.count.numpy().tolist()) == ([0, 1, 0], [2, 1])
    assert tf.unique(texts).y.numpy().tolist() == [b"b", b"a"]
    longer = tf.map_fn(lambda text: tf.strings.join([text, "!"]), texts)
    assert longer.numpy().tolist() == [b"b!", b"a!", b"b!"]
    tf.debugging.assert_equal(texts, ["b", "a", "b"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="first at"):
        tf.debugging.assert_equal(texts, tf.constant("b"))


def test_one_text_is_compared_with_each_of_a_list():
    name = tf.strings.split("a/b/c", "/")[-2]  # a folder's name, of a tutorial
    assert (name == ["a", "b"]).tolist() == [False, True]
    assert (name != (b"a", b"b")).tolist() == [True, False]
    assert name == "b" and name == b"b" and name != "c"
    assert name != 1 and name != object() and bool(name == object()) is False


@pytest.mark.parametrize("value", [b"hello?>", b"\xff\xfe\x00", b"", "äö", ["a", "bcd"]])
def test_base64(value):
    plain = tf.constant(value).numpy()
    for pad in (False, True):
        code = tf.io.encode_base64(value, pad)
        assert np.array_equal(tf.io.decode_base64(code).numpy(), plain)
    assert tf.io.encode_base64(b"hello?>").numpy() == b"aGVsbG8_Pg"
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not base64"):
        tf.io.decode_base64("a$")


def test_files_that_match(tmp_path):
    for name in ("b.txt", "a.txt", "c.csv"):
        (tmp_path / name).touch()
    (tmp_path / "folder.txt").mkdir()
    found = tf.io.matching_files([f"{tmp_path}/*.txt", f"{tmp_path}/a*"])
    assert [str(path).rpartition("/")[2] for path in found] == ["a.txt", "b.txt"]


def test_no_texts_are_joined_to_an_empty_one():
    none = np.array(["a"])[1:]
    assert S.reduce_join(none, axis=-1, separator=" ").numpy() == b""
    assert S.reduce_join(np.zeros((2, 0), str), axis=1).numpy().tolist() == [b"", b""]
    assert S.reduce_join(np.zeros((2, 0), str), axis=0).shape == (0,)
