"""LoRA."""

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
layers = keras.layers

RNG = np.random.default_rng(0)
FLOATS = {
    "dense": (lambda **kw: layers.Dense(4, **kw), (3, 5)),
    "einsum": (lambda **kw: layers.EinsumDense("abc,cde->abde", (None, 2, 3), **kw), (2, 3, 4)),
    "conv1": (lambda **kw: layers.Conv1D(4, 3, padding="causal", **kw), (2, 5, 3)),
    "conv2": (lambda **kw: layers.Conv2D(4, 2, groups=2, **kw), (2, 4, 4, 2)),
    "conv3": (lambda **kw: layers.Conv3D(2, 2, **kw), (1, 3, 3, 3, 2)),
}


def filled(layer):
    layer.set_weights([RNG.normal(size=w.shape).astype(np.float32) for w in layer.get_weights()])
    return layer


def adapted(**kwargs):
    layer = layers.Dense(4, **kwargs)
    layer.build((None, 3))
    return filled(layer)


@pytest.mark.parametrize("name", FLOATS)
def test_the_sum_of_both_is_the_kernel(name):
    make, shape = FLOATS[name]
    x = RNG.normal(size=shape).astype(np.float32)
    layer = make(lora_rank=2, lora_alpha=3)
    layer(x)
    filled(layer)
    kernel, a, b = (w.numpy() for w in (layer._kernel, layer.lora_kernel_a, layer.lora_kernel_b))
    whole = kernel + 1.5 * a @ b
    np.testing.assert_allclose(layer.kernel, whole, rtol=1e-5, atol=1e-5)
    plain = make()
    plain(x)
    plain.set_weights([whole, *(w.numpy() for w in layer.weights if w._name == "bias")])
    np.testing.assert_allclose(layer(x), plain(x), rtol=1e-5, atol=1e-5)
    trained = [w._name for w in layer.trainable_weights]
    assert trained[-2:] == ["lora_kernel_a", "lora_kernel_b"] and "kernel" not in trained


@pytest.mark.parametrize("cls", [layers.Embedding, layers.ReversibleEmbedding])
def test_an_embedding_has_it_too(cls):
    layer = cls(5, 4, lora_rank=2)
    words = np.array([[1, 4]])
    layer(words)
    filled(layer)
    a, b = layer.lora_embeddings_a.numpy(), layer.lora_embeddings_b.numpy()
    whole = layer._embeddings.numpy() + a @ b
    np.testing.assert_allclose(layer(words)[0], whole[[1, 4]], rtol=1e-5, atol=1e-5)
    assert [w.path for w in layer.trainable_weights] == [
        f"{layer.name}/lora_embeddings_a",
        f"{layer.name}/lora_embeddings_b",
    ]


def test_it_can_be_enabled_later_and_changes_nothing_at_first():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="d")])
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    before = model(x).numpy()
    layer = model.layers[0]
    layer.enable_lora(2)
    np.testing.assert_array_equal(model(x), before)
    assert layer.lora_enabled and layer.lora_alpha == layer.lora_rank == 2
    assert layer.lora_kernel_a.path == f"{model.name}/d/lora_kernel_a"
    assert [w._name for w in layer.weights] == ["kernel", "bias", "lora_kernel_a", "lora_kernel_b"]


def test_gradients_are_those_of_the_factors():
    layer, x = adapted(lora_rank=2), RNG.normal(size=(5, 3)).astype(np.float32)
    a, b = layer.lora_kernel_a, layer.lora_kernel_b
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) ** 2) / 2
    found = tape.gradient(loss, [layer._kernel, a, b])
    of_kernel = x.T @ layer(x).numpy()
    # Frozen, and watched by a tape all the same, as in TensorFlow.
    np.testing.assert_allclose(found[0], of_kernel, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1], of_kernel @ b.numpy().T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[2], a.numpy().T @ of_kernel, rtol=1e-5, atol=1e-5)


def test_only_the_factors_are_trained_in_fit():
    x, y = RNG.normal(size=(8, 3)).astype(np.float32), RNG.integers(0, 4, 8)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, use_bias=False, lora_rank=2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    layer = model.layers[0]
    kernel, whole = layer._kernel.numpy().copy(), layer.kernel.numpy()
    model.fit(x, y, epochs=2, verbose=0)
    np.testing.assert_array_equal(layer._kernel, kernel)
    assert np.abs(layer.kernel.numpy() - whole).max() > 1e-5


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_a_saved_model_gives_the_same_and_trains_on(tmp_path, ending):
    pytest.importorskip("h5py")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, lora_rank=2, lora_alpha=4)])
    filled(model)
    model.save(tmp_path / f"m{ending}")
    again = keras.models.load_model(tmp_path / f"m{ending}")
    x = RNG.normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(again(x), model(x), rtol=1e-5, atol=1e-5)
    layer = again.layers[0]
    assert layer.lora_enabled and (layer.lora_rank, layer.lora_alpha) == (2, 4)
    assert np.abs(layer.lora_kernel_a.numpy()).max() > 0


def test_weights_are_saved_as_one_table_that_any_layer_reads(tmp_path):
    pytest.importorskip("h5py")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, lora_rank=2)])
    filled(model)
    model.save_weights(tmp_path / "a.weights.h5")
    plain = keras.Sequential([keras.Input((3,)), layers.Dense(4)])
    plain.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_allclose(plain.layers[0].kernel, model.layers[0].kernel, rtol=1e-6)
    model.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(model.layers[0]._kernel, plain.layers[0].kernel)
    assert not model.layers[0].lora_kernel_b.numpy().any()


def test_halves_keep_factors_of_32_bits():
    for dtype in ("float16", "mixed_bfloat16"):
        layer = adapted(lora_rank=2, dtype=dtype)
        assert layer.lora_kernel_a.dtype == "float32"
        assert layer.kernel.dtype == layer(np.ones((1, 3))).dtype == layer.compute_dtype


def test_configs_hold_it_where_it_is_in_use():
    assert "lora_rank" not in layers.Dense(4).get_config()
    config = layers.Conv2D(4, 3, lora_rank=2).get_config()
    assert (config["lora_rank"], config["lora_alpha"]) == (2, 2)
    assert layers.Conv2D.from_config(config).lora_rank == 2


def test_what_it_does_not_go_with():
    with pytest.raises(ValueError, match="isn't yet built"):
        layers.Dense(4).enable_lora(2)
    with pytest.raises(ValueError, match="already enabled"):
        adapted(lora_rank=2).enable_lora(2)
    with pytest.raises(ValueError, match="kernel_constraint"):
        adapted(kernel_constraint="non_neg").enable_lora(2)
    with pytest.raises(ValueError, match="embedding constraints"):
        layers.Embedding(4, 2, embeddings_constraint="non_neg", lora_rank=1)(np.array([1]))
    with pytest.raises(AttributeError, match="must build the layer"):
        layers.Dense(4).kernel  # noqa: B018
