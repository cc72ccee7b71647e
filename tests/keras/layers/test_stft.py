"""STFTSpectrogram, against NumPy's Fourier transforms of the frames."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.gradients import check_gradients

keras, layers = tf.keras, tf.keras.layers
X = np.random.default_rng(0).normal(size=(2, 50, 3)).astype(np.float32)


def spectra(frame=16, step=8, points=16, window=np.hanning, squares=True):
    """[batch, channels, frames, frequencies], complex."""
    signal, shape = X.transpose(0, 2, 1).astype(np.float64), window(frame)
    shape = shape / (np.sqrt((shape**2).sum()) if squares else shape.sum())
    starts = range(0, signal.shape[-1] - frame + 1, step)
    frames = np.stack([signal[..., i : i + frame] * shape for i in starts], axis=2)
    return np.fft.rfft(frames, points)


def flat(found):
    """As the layer gives it: the channels one after the other."""
    batch, _, frames, _ = found.shape
    return found.transpose(0, 2, 1, 3).reshape(batch, frames, -1)


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("real", np.real),
        ("imag", np.imag),
        ("magnitude", lambda z: np.sqrt(np.maximum(np.abs(z) ** 2, 1e-7))),
        ("log", lambda z: np.log(np.sqrt(np.maximum(np.abs(z) ** 2, 1e-7)))),
        ("stft", lambda z: np.concatenate([z.real, z.imag], axis=-1)),
        ("psd", lambda z: np.abs(z) ** 2 * np.r_[1, np.full(z.shape[-1] - 2, 2), 1]),
    ],
)
def test_modes(mode, told):
    found = layers.STFTSpectrogram(mode, 16, 8)(X)
    np.testing.assert_allclose(found, flat(told(spectra())), rtol=1e-5, atol=1e-5)


def test_angles_where_there_is_something_to_turn():
    found, sought = layers.STFTSpectrogram("angle", 16, 8)(X).numpy(), flat(spectra())
    strong = (np.abs(sought) > 0.1) & (np.abs(np.angle(sought)) < 3)
    np.testing.assert_allclose(found[strong], np.angle(sought)[strong], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"frame_length": 12}, {"frame": 12, "step": 6}),
        ({"fft_length": 64, "frame_step": 5}, {"points": 64, "step": 5}),
        ({"window": "hamming"}, {"window": np.hamming}),
        ({"window": np.arange(1.0, 17.0)}, {"window": lambda n: np.arange(1.0, n + 1)}),
        ({"periodic": True}, {"window": lambda n: np.hanning(n + 1)[:n]}),
        ({"scaling": "spectrum"}, {"squares": False}),
    ],
)
def test_frames_and_windows(settings, expected):
    layer = layers.STFTSpectrogram(**{"mode": "real", "frame_length": 16, **settings})
    np.testing.assert_allclose(layer(X), flat(spectra(**expected).real), rtol=1e-5, atol=1e-5)


def test_shapes():
    def made(x, **settings):
        return layers.STFTSpectrogram(frame_length=16, frame_step=8, **settings)(x)

    turned = X.transpose(0, 2, 1)
    plain, image = made(X), made(X, expand_dims=True)
    assert plain.shape == (2, 5, 27) and image.shape == (2, 5, 9, 3)
    np.testing.assert_array_equal(image[..., 1], plain[..., 9:18])
    first = {"data_format": "channels_first"}
    np.testing.assert_array_equal(made(turned, **first), np.transpose(plain, (0, 2, 1)))
    np.testing.assert_array_equal(
        made(turned, expand_dims=True, **first), np.transpose(image, (0, 3, 1, 2))
    )
    assert made(X, padding="same").shape == (2, 7, 27)
    assert made(keras.Input((None, 3)), expand_dims=True).shape == (None, None, 9, 3)


def test_it_learns_unless_it_is_told_not_to_and_is_kept(tmp_path):
    model = keras.Sequential(
        [keras.Input((50, 3)), layers.STFTSpectrogram("psd", 16), layers.Flatten(), layers.Dense(1)]
    )
    assert [w.path.split("/")[-1] for w in model.layers[0].trainable_weights] == [
        "real_kernel",
        "imag_kernel",
    ]
    model.compile("sgd", "mse", run_eagerly=True)
    before = model.layers[0].get_weights()
    model.fit(X, np.ones((2, 1)), verbose=0)
    assert all((a != b).any() for a, b in zip(before, model.layers[0].get_weights(), strict=True))
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))
    fixed = layers.STFTSpectrogram(frame_length=16, trainable=False)
    fixed(X)
    assert not fixed.trainable_weights and len(fixed.weights) == 2


@pytest.mark.parametrize("mode", ["log", "angle", "stft"])
def test_gradients(mode):
    layer = layers.STFTSpectrogram(mode, 6, 4, dtype="float64")
    check_gradients(layer, [np.random.default_rng(1).normal(size=(1, 12, 1))])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "loud"}, "mode must be .*'loud'"),
        ({"frame_length": 8, "frame_step": 9}, "frame_step=9, frame_length=8"),
        ({"frame_length": 8, "fft_length": 4}, "fft_length=4"),
        ({"scaling": "more"}, "scaling.*'more'"),
        ({"padding": "causal"}, "padding.*'causal'"),
        ({"window": "door"}, "'hann'.*array of its values, not 'door'"),
    ],
)
def test_wrong_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        layers.STFTSpectrogram(**settings)


def test_wrong_windows_and_signals():
    with pytest.raises(ValueError, match=r"equal to \[frame_length\].*\(3,\)"):
        layers.STFTSpectrogram(frame_length=16, window=[1.0, 2.0, 3.0])(X)
    with pytest.warns(UserWarning, match="power of two"):
        layers.STFTSpectrogram(frame_length=16, fft_length=20)
    with pytest.raises(ValueError, match="side should be 'real' or 'imag'"):
        keras.initializers.STFTInitializer("left")
