"""Layers: names, tracking, weights, errors."""

import numpy as np
import pytest

import distgrad as tf

layers = tf.keras.layers


def x(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: layers.Dense(2).count_params(), "build"),
        (lambda: layers.Dense(2, name="a/b"), "a/b"),
        (lambda: layers.Layer(name=3), "3"),
        (lambda: tf.keras.Sequential(["dense"]), "dense"),
    ],
)
def test_wrong_use_is_a_value_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_set_weights_and_get_weights():
    layer = layers.Dense(2)
    layer.build((None, 3))
    weights = layer.get_weights()
    weights[0][:] = 7
    assert not (layer.kernel.numpy() == 7).any(), "get_weights gives copies"
    layer.set_weights(weights)
    assert (layer.kernel.numpy() == 7).all()
    with pytest.raises(ValueError):
        layer.set_weights(weights[:1])
    with pytest.raises(ValueError):
        layer.set_weights([weights[1], weights[0]])
    assert layer.count_params() == 8


def test_subclassed_layer_tracks_lists_and_frozen_parts():
    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.parts = [layers.Dense(4), layers.Dense(4)]
            self.extra = tf.Variable(1.0)

        def call(self, inputs, training=False):
            for part in self.parts:
                inputs = part(inputs)
            return inputs * self.extra

    block = Block()
    block(x(2, 4))
    assert len(block.trainable_variables) == 5
    block.parts[0].trainable = False
    assert len(block.trainable_variables) == 3 and len(block.non_trainable_variables) == 2


def test_layers_of_one_list_come_in_its_order_whenever_they_were_made():
    class Net(tf.keras.Model):
        def __init__(self):
            super().__init__()
            a, b, c = (tf.keras.layers.Dense(1, name=name) for name in "abc")
            self.first, self.rest = [], {}
            self.first.append(c)
            self.first.append(a)
            self.rest["b"] = b

        def call(self, x):
            return self.first[0](x)

    assert [layer.name for layer in Net().layers] == ["c", "a", "b"]
    assert [layer.name for layer in tf.keras.Sequential(Net().first).layers] == ["c", "a"]


def test_layers_put_into_lists_by_turns_come_in_the_order_of_keras():
    class Net(tf.keras.Model):
        def __init__(self):
            super().__init__()
            made = tf.keras.layers.Dense(1, name="made")
            self.ends, self._convs, self._norms = {}, [], []
            self.stem = tf.keras.layers.Dense(1, name="stem")
            for i in range(2):
                self._convs.append(tf.keras.layers.Dense(1, name=f"conv{i}"))
                norms = [tf.keras.layers.Dense(1, name=f"norm{i}")]
                self.ends[f"mid{i}"] = tf.keras.layers.Dense(1, name=f"mid{i}")
                self._norms.append([*norms, tf.keras.layers.Dense(1, name=f"last{i}")])
                self.ends[f"end{i}"] = tf.keras.layers.Dense(1, name=f"end{i}")
            self.whole = [tf.keras.layers.Dense(1, name="b"), made]
            self.stem = self.stem

        def call(self, x):
            for conv, (norm, last) in zip(self._convs, self._norms, strict=True):
                x = last(norm(conv(x)))
            for end in self.ends.values():
                x = end(x)
            return self.whole[1](self.whole[0](self.stem(x)))

    net = Net()
    net(np.ones((1, 1)))
    names = "stem conv0 mid0 norm0 last0 end0 conv1 mid1 norm1 last1 end1 b made"
    assert [layer.name for layer in net.layers] == names.split()
    assert [weight.path.split("/")[1] for weight in net.weights[::2]] == names.split()


def test_automatic_names_start_anew_in_every_model():
    def paths():
        model = tf.keras.Sequential([layers.Dense(3), layers.Dense(2), layers.Dense(2, name="top")])
        model.build((None, 4))
        return list(model.variable_paths())

    assert paths() == paths()
    assert paths()[::2] == ["dense/kernel", "dense_1/kernel", "top/kernel"]


def test_a_layer_used_twice_counts_once():
    shared = layers.Dense(4)
    model = tf.keras.Sequential([shared, shared])
    model.build((None, 4))
    assert len(model.weights) == 2


def test_initial_values_follow_the_seed():
    def kernel(seed):
        tf.keras.utils.set_random_seed(seed)
        layer = layers.Dense(50)
        layer.build((None, 30))
        return layer.kernel.numpy()

    np.testing.assert_array_equal(kernel(1), kernel(1))
    assert (kernel(1) != kernel(2)).any()
    limit = np.sqrt(6 / 80)
    assert abs(kernel(3)).max() <= limit and abs(kernel(3)).max() > 0.95 * limit


@pytest.mark.parametrize(
    "make, option, other",
    [
        (lambda **k: layers.Dense(2, **k), {"quantization_config": None}, "int8"),
        (lambda **k: layers.StringLookup(vocabulary=["a"], **k), {"oov_method": "floormod"}, "x"),
        (lambda **k: layers.TextVectorization(**k), {"encoding": "utf-8"}, "latin-1"),
    ],
)
def test_options_with_one_value_here_are_taken_with_it(make, option, other):
    layer = make(**option)
    assert not set(option) & set(layer.get_config())
    type(layer).from_config({**layer.get_config(), **option})
    name = next(iter(option))
    with pytest.raises(ValueError, match=f"{name} can only be .* not {other!r}"):
        make(**{name: other})


def test_cudnn_is_taken_and_changes_nothing():
    for kind in (layers.LSTM, layers.GRU):
        layer = kind(2, use_cudnn=False)
        assert "use_cudnn" not in layer.get_config()
        assert layer(x(1, 3, 2)).shape == (1, 2)


def test_names_and_configs_are_those_of_keras():
    layer = layers.ConvLSTM2D(2, 2)
    layer(x(1, 2, 3, 3, 1))
    assert layer.name == "conv_lstm2d"
    assert layer.weights[0].path == "conv_lstm2d/conv_lstm_cell/kernel"
    entry = layers.serialize(layers.GroupQueryAttention(2, 2, 1))
    assert entry["class_name"] == "GroupQueryAttention"
    assert isinstance(layers.deserialize(entry), layers.GroupQueryAttention)
    for layer in (layers.Discretization([1.0]), layers.SpatialDropout2D(0.1)):
        assert "trainable" not in layer.get_config(), "Keras's constructors do not take it"


def test_weights_of_a_layer_made_frozen_are_frozen_until_it_is_not():
    layer = layers.Dense(2, trainable=False)
    layer(x(1, 3))
    assert [w.trainable for w in layer.weights] == [False, False]
    layer.trainable = True
    assert [w.trainable for w in layer.weights] == [True, True]


def test_inputs_may_be_given_by_the_name_that_they_have_in_keras():
    layer = layers.Dense(2)
    np.testing.assert_array_equal(layer(inputs=x(1, 3)), layer(x(1, 3)))
    assert layers.Dense(2)(inputs=tf.keras.Input((3,))).shape == (None, 2)
    assert layers.Rescaling(2.0)(data=x(1, 3)).shape == (1, 3)
    assert layers.LSTM(2)(sequences=x(1, 3, 4), training=True).shape == (1, 2)
    with pytest.raises(TypeError, match="foo"):
        layers.Dense(2)(foo=x(1, 3))
    with pytest.raises(ValueError, match="None"):
        layers.Dense(2)(None)


def test_a_call_of_a_users_own_names_its_arguments_itself():
    class Named(layers.Layer):
        def call(self, **given):
            return given["data"] * 2

    assert Named()(data=tf.constant([1.0])).numpy().tolist() == [2]


def test_a_layer_that_defines_no_call_says_so():
    layer = layers.Layer()
    layer.build(None)
    assert layer.built
    with pytest.raises(NotImplementedError, match="call"):
        layer(x(1, 2))


def test_a_layer_without_autocast_takes_its_inputs_and_weights_as_they_are():
    class Sum(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight((), "ones")

        def call(self, x):
            self.seen = x.dtype.name, self.w.dtype.name, tf.identity(self.w).dtype.name
            return x

    wide = np.ones(2)
    for options, seen in (
        ({}, ("float32", "float32", "float32")),
        ({"autocast": False}, ("float64", "float32", "float32")),
        ({"dtype": "mixed_float16"}, ("float16", "float16", "float16")),
        ({"dtype": "mixed_float16", "autocast": False}, ("float64", "float32", "float32")),
    ):
        layer = Sum(**options)
        layer(wide)
        assert layer.seen == seen and layer.w.dtype == "float32"
        assert layer.autocast is options.get("autocast", True)
        assert "autocast" not in layer.get_config()


def test_a_policy_is_set_by_its_name():
    layer = layers.Dense(2)
    layer.dtype_policy = "mixed_bfloat16"
    assert layer.dtype_policy == tf.keras.dtype_policies.get("mixed_bfloat16")
    assert layer(x(1, 3)).dtype == tf.bfloat16 and layer.kernel.dtype == "float32"


def test_a_weight_is_not_added_at_each_call():
    class Adds(layers.Layer):
        def call(self, x):
            return x + self.add_weight((), "zeros", name="late")

    class More(layers.Dense):
        def build(self, shape):
            super().build(shape)
            self.more = self.add_weight((), "zeros")

    with pytest.raises(ValueError, match="cannot add new elements of state.*late"):
        tf.keras.Sequential([tf.keras.Input((3,)), Adds()])
    assert len(tf.keras.Sequential([More(2)])(x(1, 3)).shape) == 2


def test_a_layer_that_cannot_be_tried_out_is_asked_for_the_shapes_of_its_outputs():
    class Untried(layers.Layer):
        def __init__(self, answer, **options):
            super().__init__(**options)
            self.answer = answer

        def call(self, x):
            raise RuntimeError("needs a value")

        def compute_output_shape(self, shape):
            return self.answer(shape)

    given = tf.keras.Input((3,))
    assert Untried(lambda s: (*s, 4), dtype="float16")(given).shape == (None, 3, 4)
    assert Untried(lambda s: s, dtype="float16")(given).dtype == "float16"
    several = Untried(lambda s: {"a": s, "b": (s, [(2,)])})(given)
    assert several["b"][1][0].shape == (2,) and isinstance(several["b"], tuple)
    with pytest.raises(RuntimeError, match="needs a value"):
        tf.keras.layers.Lambda(Untried(lambda s: s).call)(given)


def test_shapes_are_handed_over_by_the_names_of_the_inputs():
    class Two(layers.Layer):
        def build(self, b_shape, a_shape):
            self.seen = a_shape, b_shape

        def call(self, a, b):
            raise RuntimeError("needs a value")

        def compute_output_shape(self, b_shape, a_shape):
            return a_shape[:1] + b_shape[1:]

    layer = Two()
    out = layer(tf.keras.Input((3,)), b=tf.keras.Input((5,)))
    assert out.shape == (None, 5) and layer.seen == ((None, 3), (None, 5))


def test_build_gets_shapes_in_the_nest_of_the_inputs():
    class First(layers.Layer):
        def build(self, shapes):
            self.seen = shapes

        def call(self, inputs):
            return inputs[0]

    a, b = tf.ones((2, 3)), tf.ones((2, 4))
    for given, shapes in [
        ([a, b], [(2, 3), (2, 4)]),
        ((a, b), ((2, 3), (2, 4))),
        (([a, b], (b,)), ([(2, 3), (2, 4)], ((2, 4),))),
    ]:
        layer = First()
        layer(given)
        assert layer.seen == layer.get_build_config()["input_shape"] == shapes
    layer = First()
    layer((tf.keras.Input((3,)), tf.keras.Input((4,))))
    assert layer.seen == ((None, 3), (None, 4))


def test_build_sees_the_axes_that_are_unknown():
    class Sees(layers.Layer):
        def build(self, shape):
            self.seen = shape
            self.inner = layers.Dense(2)

        def call(self, x):
            return self.inner(x)

    layer = Sees()
    tf.keras.Sequential([tf.keras.Input((None, 3)), layer])
    assert layer.seen == (None, None, 3)
    assert layer.inner.kernel.path == "sequential/sees/dense/kernel"
    for known in (layers.Dense(2), layers.LSTM(2), layers.MultiHeadAttention(2, 2)):
        given = [tf.keras.Input((5, None))] * (2 if "multi" in known.name else 1)
        with pytest.raises(ValueError, match="must be known"):
            known(*given)


def test_an_input_may_be_a_tensor_of_another_model():
    given = tf.keras.Input((3,))
    middle = layers.Dense(4)(given)
    out = layers.Dense(2)(middle)
    again = tf.keras.Input(tensor=middle)
    assert again is middle
    assert tf.keras.Model(again, out)(x(5, 4)).shape == (5, 2)
    for wrong in ({"shape": (3,)}, {"batch_size": 2}, {"dtype": "int32"}, {"batch_shape": (1, 4)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            layers.InputLayer(input_tensor=middle, **wrong)
    with pytest.raises(ValueError, match="KerasTensor"):
        tf.keras.Input(tensor=np.ones(3))
    with pytest.raises(ValueError, match="batch_size"):
        tf.keras.Input(batch_shape=(2, 3), batch_size=2)


def test_a_scope_may_have_no_objects():
    with tf.keras.saving.custom_object_scope(None):
        assert layers.Embedding(3, 2).build() is None


def test_masks_are_computed_of_arrays_too():
    steps = np.array([[[0.0, 0.0], [1.0, 0.0]]])
    assert layers.Masking().compute_mask(steps).numpy().tolist() == [[False, True]]


def test_a_weight_takes_values_of_any_dtype():
    weight = tf.keras.Variable(np.zeros(2, np.float32))
    for value in (tf.constant([1.0, 2.0], tf.float64), tf.constant([1, 2]), tf.Variable([1, 2])):
        weight.assign(value)
        weight.assign_add(value)
        assert weight.dtype == "float32" and weight.numpy().tolist() == [2, 4]
    with pytest.raises(ValueError, match="dtype"):
        tf.Variable([1.0]).assign(tf.constant([1]))


def test_a_weight_of_a_mixed_layer_is_counted_up_in_its_own_dtype():
    class Counts(layers.Layer):
        def build(self, shape):
            self.count = self.add_weight((), "zeros", trainable=False)

        def call(self, x):
            self.count.assign(tf.reduce_sum(x))
            self.count.assign_add(1.0)
            self.count.assign_sub(tf.constant(2.0, tf.float16))
            return x

    layer = Counts(dtype="mixed_float16")
    layer(np.array([2048.0]))
    assert layer.count.numpy() == 2047
    layer(np.array([2049.0]))
    assert layer.count.numpy() == 2047, "2048 in float16"


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Dense(2),
        lambda: layers.Conv1D(2, 1),
        lambda: layers.LSTM(2),
        lambda: layers.LayerNormalization(),
        lambda: layers.Flatten(),
        lambda: layers.GlobalAveragePooling1D(),
        lambda: layers.Embedding(3, 2),
    ],
)
def test_a_layer_of_one_input_refuses_a_list(make):
    for given in ([x(2, 3, 4)] * 2, [tf.keras.Input((3, 4))], {"a": tf.constant(x(2, 3, 4))}):
        with pytest.raises(ValueError, match="takes one tensor"):
            make()(given)


def test_a_nest_goes_through_a_layer_that_takes_one():
    given = {"a": tf.keras.Input((3,)), "b": [tf.keras.Input((4, 5))]}
    for layer in (layers.Dropout(0.1), layers.Identity()):
        assert layer(given)["b"][0].shape == layer(given["b"])[0].shape == (None, 4, 5)

    class Both(layers.Dense):
        def build(self, shapes):
            super().build(shapes[0])

        def call(self, inputs):
            return super().call(inputs[0] + inputs[1])

    assert Both(2)([x(1, 3), x(1, 3)]).shape == (1, 2)


@pytest.mark.parametrize("eager", [True, False])
def test_the_first_step_of_fit_counts_once(eager):
    class Late(layers.Layer):
        seen = None

        def call(self, x, training=False):
            if training and self.seen is None:
                self.seen = tf.Variable(0.0, trainable=False)
            if training:
                self.seen.assign_add(1.0)
            return x

    model = tf.keras.Sequential([tf.keras.Input((3,)), layers.Dense(1), Late()])
    model.compile("sgd", "mse", run_eagerly=eager)
    model.fit(x(6, 3), x(6, 1), batch_size=2, verbose=0)
    assert model.layers[-1].seen.numpy() == 3


def test_who_leaves_out_the_constructor_of_the_base_is_told():
    class Early(layers.Layer):
        def __init__(self):
            self.w = self.add_weight((3,))

    class Counts(tf.keras.metrics.Metric):
        def __init__(self):
            self.total = self.add_weight(name="total")

    class Keeps(layers.Layer):
        def __init__(self):
            self.var = tf.Variable(5.0)

    for make in (Early, Counts):
        with pytest.raises(RuntimeError, match=rf"{make.__name__}.__init__ does not call super"):
            make()
    assert [w.numpy() for w in Keeps().weights] == [5.0]  # which checkpoints keep, as in a guide


def test_add_metric_says_what_to_do():
    with pytest.raises(NotImplementedError, match=r"compile\(metrics"):
        layers.Dense(2).add_metric(1.0, name="mean")
