"""What listings of keras.io do that is in no reference: each was found by running one of them."""

import numpy as np
import pytest

import distgrad as tf
from distgrad import keras
from distgrad.keras import layers, ops

RNG = np.random.default_rng(0)


class TestSupervisedContrastive:
    """A loss that defines ``__call__``, and normalises what it is given."""

    class Pairs(keras.losses.Loss):
        def __call__(self, labels, features, sample_weight=None):
            features = keras.utils.normalize(features, axis=1, order=2)
            logits = ops.matmul(features, ops.transpose(features)) / 0.05
            same = ops.cast(ops.equal(labels, ops.transpose(labels)), "float32")
            same /= ops.sum(same, 1, keepdims=True)
            return ops.mean(keras.losses.categorical_crossentropy(same, logits, from_logits=True))

    x = RNG.normal(size=(32, 6)).astype("float32")
    y = RNG.integers(0, 3, (32, 1)).astype("float32")

    @pytest.fixture
    def model(self):
        model = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
        model.set_weights([np.linspace(-1, 1, 24).reshape(6, 4), np.zeros(4)])
        model.compile(keras.optimizers.SGD(0.1), self.Pairs())
        return model

    def test_fit_takes_its_value_and_its_gradient(self, model):
        with tf.GradientTape() as tape:
            loss = self.Pairs()(self.y, model(self.x))
        weights = [
            w.numpy() - 0.1 * g.numpy()
            for w, g in zip(model.weights, tape.gradient(loss, model.weights), strict=True)
        ]
        history = model.fit(self.x, self.y, batch_size=32, shuffle=False, verbose=0).history
        np.testing.assert_allclose(history["loss"], float(loss), rtol=1e-6)
        for weight, expected in zip(model.weights, weights, strict=True):
            np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-5, atol=1e-6)

    def test_evaluate_weighs_batches_by_their_samples(self, model):
        losses = [
            float(self.Pairs()(self.y[a:b], model(self.x[a:b]))) for a, b in ((0, 24), (24, 32))
        ]
        found = model.evaluate(self.x, self.y, batch_size=24, verbose=0)
        np.testing.assert_allclose(found, (24 * losses[0] + 8 * losses[1]) / 32, rtol=1e-6)


def test_normalize_of_a_tensor_is_a_tensor_and_that_of_an_array_an_array():
    x = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    assert isinstance(keras.utils.normalize(x), np.ndarray)
    made = keras.utils.normalize(tf.constant(x), order=1)
    np.testing.assert_allclose(made.numpy(), [[3 / 7, 4 / 7], [0, 0]], rtol=1e-6)
    model = keras.Model(inputs := keras.Input((2,)), keras.utils.normalize(inputs))
    np.testing.assert_allclose(model(x), [[0.6, 0.8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dense(2, activation="softmax"),
        layers.EinsumDense("ab,bc->ac", 2, activation="softmax"),
    ],
)
def test_an_activation_can_be_taken_off(layer):  # before class activations are drawn
    x = RNG.normal(size=(3, 2)).astype("float32")
    before = layer(x).numpy()
    layer.activation = None
    after = layer(x).numpy()
    np.testing.assert_allclose(ops.softmax(after), before, rtol=1e-5)
    assert not np.allclose(after, before)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_an_activation_can_be_taken_off_a_convolution(data_format):
    layer = layers.Conv2D(2, 1, activation="relu", data_format=data_format)
    x = RNG.normal(size=(1, 4, 4, 4)).astype("float32")
    before = layer(x).numpy()
    layer.activation = None
    after = layer(x).numpy()
    np.testing.assert_array_equal(np.maximum(after, 0), before)
    assert after.min() < 0


class TestSizeOfBatchInTheModel:
    """As in the switch transformer, whose experts share out the tokens of a batch."""

    class Tokens(layers.Layer):
        def call(self, x):
            tokens = ops.reshape(x, (4 * 3, 2))
            return ops.reshape(tokens * 2.0, (4, 3, 2))

    x = RNG.normal(size=(8, 3, 2)).astype("float32")

    def test_a_batch_fits_where_one_sample_does_not(self):
        model = keras.Sequential([self.Tokens(), layers.Flatten(), layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(self.x, np.zeros(8), batch_size=4, verbose=0)
        loss = model.evaluate(self.x, np.zeros(8), batch_size=4, verbose=0)
        np.testing.assert_allclose(
            loss, np.mean(model.predict(self.x, 4, verbose=0) ** 2), rtol=1e-5
        )

    def test_an_error_is_that_of_the_batch(self):
        model = keras.Sequential([self.Tokens(), layers.Flatten(), layers.Dense(1)])
        model.compile("sgd", "mse")
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"shape \(2, 3, 2\)") as caught:
            model.fit(self.x, np.zeros(8), batch_size=2, verbose=0)
        assert caught.value.__context__ is None


class Own(keras.Model):
    """A model that is never called: its step calls the network that it holds."""

    def __init__(self):
        super().__init__()
        self.network = keras.Sequential([keras.Input((2,)), layers.Dense(1)])

    def train_step(self, data):
        (unlabelled, _), (labelled, y) = data
        with tf.GradientTape() as tape:
            both = ops.concatenate([unlabelled, labelled], 0)
            loss = ops.mean(self.network(both) ** 2) + ops.mean((self.network(labelled) - y) ** 2)
        weights = self.network.trainable_weights
        gradients = tape.gradient(loss, weights)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return {"loss": loss, "rows": ops.cast(ops.shape(both)[0], "float32")}


class TestOwnSteps:
    def data(self):
        x = RNG.normal(size=(16, 2)).astype("float32")
        parts = [tf.data.Dataset.from_tensor_slices((x, x[:, :1])) for _ in range(2)]
        return tf.data.Dataset.zip((parts[0].batch(8), parts[1].batch(4)))

    def test_zipped_batches_may_differ_in_size(self):  # semi-supervised learning
        model = Own()
        model.compile("sgd")
        logs = model.fit(self.data(), epochs=2, verbose=0).history
        assert logs["rows"] == [12, 12] and logs["loss"][1] < logs["loss"][0]

    def test_not_where_a_batch_is_cut_into_shards(self, monkeypatch):
        monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "2")
        model = Own()
        model.compile("sgd")
        with pytest.raises(ValueError, match="differ in their number of samples"):
            model.fit(self.data(), verbose=0)

    def test_weights_of_a_model_that_is_never_called_are_saved_and_loaded(self, tmp_path):
        one, other = Own(), Own()
        one.save_weights(tmp_path / "own.weights.h5")
        other.load_weights(tmp_path / "own.weights.h5")
        for a, b in zip(one.network.weights, other.network.weights, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("classes", [(0.0, 1.0), (-1.0, 1.0)])
def test_hinge_is_captured(classes):  # a quasi-SVM
    x = RNG.normal(size=(8, 3)).astype("float32")
    y = np.array(classes, np.float32)[np.arange(8) % 2][:, None]
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, kernel_initializer="ones")])
    model.compile("sgd", keras.losses.hinge, jit_compile=True)  # an error where it cannot be
    signs = np.where(np.arange(8) % 2, 1, -1)
    expected = np.maximum(1 - signs * x.sum(1), 0).mean()
    loss = model.fit(x, y, batch_size=8, verbose=0).history["loss"][0]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


class TestFolderOfTexts:
    """Text classification from scratch, whose reviews lie in a file each."""

    @pytest.fixture
    def folder(self, tmp_path):
        for name in ("neg", "pos"):
            (tmp_path / name).mkdir()
            for i in range(6):
                (tmp_path / name / f"{i}.txt").write_text(f"{name} ä {i}", encoding="utf-8")
            (tmp_path / name / "notes.md").write_text("none")
        return tmp_path

    def test_it_is_a_dataset(self, folder, capsys):
        data = keras.utils.text_dataset_from_directory(folder, batch_size=5, seed=1)
        assert capsys.readouterr().out == "Found 12 files belonging to 2 classes.\n"
        assert data.class_names == ["neg", "pos"]
        pairs = [
            (str(text), int(label))
            for texts, labels in data
            for text, label in zip(texts, labels.numpy(), strict=True)
        ]
        assert sorted(pairs) == [
            (f"{n} ä {i}", k) for k, n in enumerate(data.class_names) for i in range(6)
        ]
        layer = layers.TextVectorization(output_sequence_length=3)
        layer.adapt(data.map(lambda text, label: text))
        assert next(iter(data.map(lambda text, label: layer(text)))).shape == (5, 3)

    def test_subsets_share_no_file(self, folder):
        options = {"validation_split": 0.25, "seed": 3, "label_mode": None, "verbose": False}
        parts = [
            keras.utils.text_dataset_from_directory(folder, subset=subset, max_length=3, **options)
            for subset in ("training", "validation")
        ]
        files = [set(part.file_paths) for part in parts]
        assert [len(each) for each in files] == [9, 3] and not files[0] & files[1]
        assert set(np.concatenate([*parts[0]]).tolist()) <= {"neg", "pos"}

    def test_one_without_texts_is_refused(self, tmp_path):
        (tmp_path / "a").mkdir()
        with pytest.raises(ValueError, match="No text files found.*txt"):
            keras.utils.text_dataset_from_directory(tmp_path, verbose=False)


class TestFolderOfSounds:
    """Keyword spotting, whose sounds lie in a file each."""

    @pytest.fixture
    def folder(self, tmp_path):
        for name, lengths in (("no", (3, 5)), ("yes", (4,))):
            (tmp_path / name).mkdir()
            for length in lengths:
                sound = np.full((length, 1), length / 8)
                file = tmp_path / name / f"{length}.wav"
                tf.io.write_file(str(file), tf.audio.encode_wav(sound, 8000))
        return tmp_path

    def test_batches_are_filled_up(self, folder):
        data = keras.utils.audio_dataset_from_directory(folder, shuffle=False, verbose=False)
        assert data.class_names == ["no", "yes"]
        ((sounds, labels),) = data
        assert sounds.shape == (3, 5, 1) and labels.numpy().tolist() == [0, 0, 1]
        np.testing.assert_allclose(sounds[0, :, 0], [0.375] * 3 + [0] * 2)

    def test_sounds_of_one_length(self, folder):
        options = {"label_mode": None, "output_sequence_length": 4, "batch_size": None}
        data = keras.utils.audio_dataset_from_directory(
            folder, shuffle=False, verbose=False, **options
        )
        assert [each.shape for each in data] == [(4, 1)] * 3

    @pytest.mark.parametrize("option", [{"sampling_rate": 16000}, {"ragged": True}])
    def test_what_it_cannot_do_is_refused(self, folder, option):
        with pytest.raises(ValueError, match="can only be"):
            keras.utils.audio_dataset_from_directory(folder, **option)


class TestHashedCrossing:
    """Numbers of TensorFlow 2.21."""

    def test_numbers_are_those_of_tensorflow(self):
        crossing = layers.HashedCrossing(num_bins=5)
        letters, numbers = np.array([*"ABABA"]), np.array([101, 101, 101, 102, 102])
        assert crossing((letters, numbers)).numpy().tolist() == [1, 4, 1, 1, 3]
        assert crossing([letters.tolist(), numbers]).dtype == tf.int64
        many = layers.HashedCrossing(num_bins=1000)
        three = np.array(["A", "hello", "ö"]), np.array([101, -7, 0]), np.array(["x", "", "yy"])
        assert many(three).numpy().tolist() == [95, 288, 761]
        columns = tf.constant([[1], [2]]), tf.constant([[3], [4]])
        assert many(columns).numpy().tolist() == [[651], [547]]

    def test_it_is_a_layer_of_a_model(self):
        inputs = [keras.Input((1,), dtype="int32"), keras.Input((1,), dtype="int32")]
        crossing = layers.HashedCrossing(1000, output_mode="one_hot")
        model = keras.Model(inputs, crossing(inputs))
        found = model([np.array([[1], [2]]), np.array([[3], [4]])])
        assert found.shape == (2, 1000) and np.argmax(found, 1).tolist() == [651, 547]
        again = layers.HashedCrossing.from_config(crossing.get_config())
        assert (again.num_bins, again.output_mode) == (1000, "one_hot")

    @pytest.mark.parametrize(
        ("inputs", "words"),
        [
            (np.array(["a"]), "a list of two inputs or more"),
            ([np.array(["a"]), np.array(["a", "b"])], r"inputs of one shape.*\(1,\), \(2,\)"),
            ([np.array(["a"]), np.array([0.5])], "texts and whole numbers, not .*float64"),
        ],
    )
    def test_other_inputs_are_refused(self, inputs, words):
        with pytest.raises(ValueError, match=words):
            layers.HashedCrossing(3)(inputs)


class TestLabelSequences:
    """Reading of words in images: values of Keras 3.15."""

    x = np.random.default_rng(0).normal(size=(3, 7, 5)).astype("float32")
    y = np.array([[1, 2, 2], [3, 0, 0], [4, 1, 0]], "int32")

    def test_loss(self):
        found = ops.ctc_loss(self.y, self.x, [3, 1, 2], [7, 6, 5])
        np.testing.assert_allclose(found, [8.541772, 8.007933, 3.013582], rtol=1e-5)
        np.testing.assert_allclose(keras.losses.CTC()(self.y, self.x), 7.784838, rtol=1e-5)
        with pytest.raises(ValueError, match="targets .batch, longest.*not of shapes"):
            keras.losses.CTC()(self.y[0], self.x)

    def test_decode(self):
        labels, scores = ops.ctc_decode(self.x, [7, 5, 0])
        expected = [[2, 1, 4, 1, 4, 3, -1], [4, 1, 2, 3, 2, -1, -1], [-1] * 7]
        assert labels.numpy().tolist() == [expected] and scores.shape == (3, 1)
        np.testing.assert_allclose(scores.numpy()[:, 0], [-5.155766, -6.320131, 0], rtol=1e-5)
        paths, chances = ops.ctc_decode(self.x, [7, 5, 0], "beam_search", 20, mask_index=None)
        assert paths.shape == (1, 3, 7) and chances.shape == (3, 1) and chances.numpy()[2] == 0
        with pytest.raises(ValueError, match="Invalid strategy"):
            ops.ctc_decode(self.x, [7, 5, 0], strategy="best")

    def test_a_model_is_trained_by_it(self):
        model = keras.Sequential([keras.Input((7, 5)), layers.Dense(5)])
        model.compile(keras.optimizers.Adam(0.05), "ctc")
        losses = model.fit(self.x, self.y, batch_size=3, epochs=20, verbose=0).history["loss"]
        assert losses[-1] < 0.7 * losses[0]


def test_a_model_whose_call_takes_no_training_is_trained_all_the_same():
    """As in TensorFlow up to 2.15: Keras 3 leaves its dropout and its moving averages off."""

    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            self.normalize, self.dense = layers.BatchNormalization(), layers.Dense(1)

        def call(self, x):
            return self.dense(self.normalize(x))

    model = Plain()
    model.compile("sgd", "mse")
    model.fit(np.full((8, 2), 5.0), np.zeros(8), verbose=0)
    np.testing.assert_allclose(model.normalize.moving_mean, [0.05, 0.05], rtol=1e-5)


class TestVariable:
    """As the Swin transformer makes its own."""

    def test_of_an_array(self):
        index = np.arange(6).reshape(2, 3)
        made = keras.Variable(initializer=index, shape=index.shape, dtype="int", trainable=False)
        assert (made.dtype, made.trainable) == (tf.int64, False)
        np.testing.assert_array_equal(made, index)
        assert keras.Variable(np.ones(2)).dtype == tf.float64
        assert keras.Variable(1.0).dtype == tf.float32 and keras.Variable([1.0, 2.0]).shape == (2,)

    def test_of_an_initializer(self):
        for initializer in (
            "ones",
            keras.initializers.Ones(),
            lambda shape, dtype: tf.ones(shape, dtype),
        ):
            made = keras.Variable(initializer, (2, 3), "float16", name="w")
            assert (made.dtype, made.name) == (tf.float16, "w")
            np.testing.assert_array_equal(made, np.ones((2, 3)))
        with pytest.raises(ValueError, match="`shape` argument should be specified"):
            keras.Variable("zeros")

    def test_weights_are_variables_and_variables_of_a_layer_are_found(self):
        class Scaled(layers.Layer):
            def __init__(self):
                super().__init__()
                self.scale = keras.Variable("ones", shape=(3,), name="scale")

            def call(self, x):
                return x * self.scale

        model = keras.Sequential([keras.Input((3,)), Scaled(), layers.Dense(1)])
        assert len(model.trainable_weights) == 3
        assert all(isinstance(weight, keras.Variable) for weight in model.weights)
        model.compile("sgd", "mse")
        model.fit(np.ones((4, 3)), np.full(4, 9.0), verbose=0)
        assert not np.array_equal(model.layers[0].scale, np.ones(3))


def test_a_table_of_few_positions_takes_texts_of_unknown_length():  # translation, with 20 words
    class Positions(layers.Layer):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = layers.Embedding(9, 4), layers.Embedding(6, 4)

        def call(self, x):
            return self.tokens(x) + self.positions(ops.arange(0, ops.shape(x)[-1], 1))

    inputs = keras.Input((None,), dtype="int64")
    outputs = Positions()(inputs)
    assert outputs.shape == (None, None, 4)
    model = keras.Model(inputs, layers.Dense(2)(outputs))
    assert model(np.ones((3, 6), np.int64)).shape == (3, 6, 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"outside \[0, 6\)"):
        model(np.ones((3, 7), np.int64))


@pytest.mark.parametrize("rows", [5, 40])
def test_a_table_of_positions_says_how_many_features_there_are(rows):  # of videos' frames
    class Positions(layers.Layer):
        def __init__(self):
            super().__init__()
            self.table = layers.Embedding(rows, 8)

        def call(self, x):
            return x + self.table(tf.range(tf.shape(x)[1]))

    inputs = keras.Input((None, None))
    outputs = Positions()(inputs)
    assert outputs.shape == (None, None, 8)
    model = keras.Model(inputs, layers.Dense(2)(outputs))
    assert model(np.ones((3, 4, 8), np.float32)).shape == (3, 4, 2)


def test_a_mask_that_is_an_argument_alone_is_not_missed_later(recwarn):  # shifted windows
    class Windows(layers.Layer):
        def call(self, x, mask=None):
            return x if mask is None else x + mask

    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(Windows()(x, mask=tf.constant([[1.0, 0, 0]])), [[2, 1, 1]] * 2)
    assert not recwarn.list


def test_stacked_cells_of_one_s_own_have_their_states_in_lists():
    class Cell(layers.Layer):
        def __init__(self, units):
            super().__init__()
            self.units = self.state_size = units

        def build(self, shape):
            self.kernel = self.add_weight((shape[-1], self.units))
            self.recurrent = self.add_weight((self.units, self.units))

        def call(self, x, states):
            y = ops.matmul(x, self.kernel) + ops.matmul(states[0], self.recurrent)
            return y, [y]

    x = RNG.normal(size=(3, 4, 2)).astype("float32")
    layer = layers.RNN([Cell(4), layers.GRUCell(2), Cell(3)], return_state=True)
    found, *states = layer(x)
    assert [tuple(state.shape) for state in states] == [(3, 4), (3, 2), (3, 3)]
    first, gru, last = layer.cell.cells
    a, b, c = np.zeros((3, 4)), tf.zeros((3, 2)), np.zeros((3, 3))
    for t in range(4):
        a = x[:, t] @ first.kernel.numpy() + a @ first.recurrent.numpy()
        b = gru(tf.constant(a, tf.float32), [b])[0]
        c = b.numpy() @ last.kernel.numpy() + c @ last.recurrent.numpy()
    for made, expected in zip((found, *states), (c, a, b, c), strict=True):
        np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("more", [[], [keras.metrics.SparseTopKCategoricalAccuracy(2)]])
def test_metrics_count_what_is_not_masked(more):  # translation of sentences of unequal lengths
    inputs = keras.Input((None,), dtype="int64")
    hidden = layers.Embedding(5, 4, mask_zero=True)(inputs)
    model = keras.Model(inputs, layers.Dense(5, activation="softmax")(hidden))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy", *more])
    x = np.array([[1, 2, 0, 0], [3, 4, 1, 0]])
    predicted = model(x)  # by the weights as they are before fit
    right = np.asarray(predicted).argmax(-1)
    y = np.where([[1, 0, 1, 1], [1, 1, 0, 1]], right, (right + 1) % 5)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["accuracy"], 3 / 5, rtol=1e-6)
    history = model.fit(x, y, batch_size=2, verbose=0).history
    np.testing.assert_allclose(history["accuracy"], 3 / 5, rtol=1e-6)
    metric = keras.metrics.SparseCategoricalAccuracy()
    np.testing.assert_allclose(metric(y, predicted), 3 / 5, rtol=1e-6)
    metric.reset_state()
    np.testing.assert_allclose(metric(y, predicted, [1.0, 2.0]), 5 / 8, rtol=1e-6)
