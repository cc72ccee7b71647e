"""Sound in WAV files."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest

import distgrad as tf

SOUND = np.random.default_rng(0).uniform(-1, 1, (20, 2)).astype(np.float32)


def of_bits(bits):
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, bits // 8, 8000, 0, "NONE", ""))
        writer.writeframes(bytes(bits // 8 * 4))
    return file.getvalue()


def test_a_sound_comes_back_in_16_bits(tmp_path):
    content = tf.audio.encode_wav(SOUND, 16000)
    tf.io.write_file(tmp_path / "a.wav", content)
    found = tf.audio.decode_wav(tf.io.read_file(tmp_path / "a.wav"))
    assert found.audio.dtype == tf.float32 and found.sample_rate.dtype == tf.int32
    audio, rate = found
    np.testing.assert_allclose(audio, SOUND, atol=0.5001 / 32768)
    assert int(rate) == 16000
    with wave.open(io.BytesIO(content.numpy())) as reader:
        assert reader.getparams()[:4] == (2, 2, 16000, 20)


def test_what_is_louder_than_can_be_is_cut():
    audio, _ = tf.audio.decode_wav(tf.audio.encode_wav([[1.0], [-1.0], [2.0], [0.5]], 8000))
    assert audio.numpy()[:, 0].tolist() == [32767 / 32768, -1, 32767 / 32768, 0.5]


def test_other_channels_and_lengths():
    content = tf.audio.encode_wav(SOUND, 8000)
    whole = tf.audio.decode_wav(content).audio.numpy()
    one, _ = tf.audio.decode_wav(content, desired_channels=1, desired_samples=5)
    np.testing.assert_array_equal(one, whole[:5, :1])
    more, _ = tf.audio.decode_wav(content, 3, 25)
    np.testing.assert_array_equal(more[:20], whole[:, [0, 1, 1]])
    assert more.shape == (25, 3) and not more[20:].numpy().any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tf.audio.decode_wav(b"RIFF"), "not those of a WAV file"),
        (lambda: tf.audio.decode_wav("a.wav"), "read_file.*'a.wav'"),
        (lambda: tf.audio.decode_wav(of_bits(8)), "16-bit WAV files, but received 8"),
        (lambda: tf.audio.encode_wav(SOUND[:, 0], 8000), r"not \(20,\)"),
    ],
)
def test_wrong_use(call, words):
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        call()


def test_a_dataset_of_sounds(tmp_path):
    for number in (1, 2):
        content = tf.audio.encode_wav(SOUND[: 4 * number] / number, 8000)
        tf.io.write_file(tmp_path / f"{number}.wav", content)

    def read(name):
        audio, _ = tf.audio.decode_wav(tf.io.read_file(name), 1, 6)
        return tf.squeeze(audio, -1)

    names = tf.data.Dataset.list_files(str(tmp_path / "*.wav"), shuffle=False)
    (batch,) = names.map(read).batch(2)
    assert batch.shape == (2, 6) and not batch[0, 4:].numpy().any() and batch[1, 4] != 0
