"""``tf.audio``: sound as the bytes of WAV files."""

from __future__ import annotations

import io as _io
import struct as _struct
import wave as _wave
from typing import Any as _Any
from typing import NamedTuple as _NamedTuple

import numpy as _np

from distgrad.core.dispatch import as_tensor as _as_tensor
from distgrad.core.errors import InvalidArgumentError as _InvalidArgumentError
from distgrad.core.later import absent as _absent
from distgrad.core.tensor import Tensor as _Tensor
from distgrad.core.texts import Bytes as _Bytes
from distgrad.core.texts import as_bytes as _as_bytes
from distgrad.image_files import bytes_of as _bytes_of

__all__ = ["decode_wav", "encode_wav"]


class DecodeWav(_NamedTuple):
    """The sound, and how many samples of it make a second."""

    audio: _Tensor
    sample_rate: _Tensor


def decode_wav(
    contents: _Any, desired_channels: int = -1, desired_samples: int = -1, name: str | None = None
) -> DecodeWav:
    """The sound of a WAV file of 16 bits: float32 (samples, channels) in [-1, 1), and int32.

    Of more ``desired_channels`` than there are, the last is repeated; for ``desired_samples`` the
    sound is cut, or filled up with zeros. Raises InvalidArgumentError (a ValueError) for bytes of
    another kind.
    """
    try:
        with _wave.open(_io.BytesIO(_bytes_of(contents))) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (_wave.Error, EOFError, _struct.error) as error:
        raise _InvalidArgumentError(f"contents are not those of a WAV file: {error}") from None
    if width != 2:
        raise _InvalidArgumentError(
            f"Can only read 16-bit WAV files, but received {8 * width}: scipy.io.wavfile.read "
            "reads others"
        )
    sound = _np.frombuffer(data, "<i2").reshape(-1, channels).astype(_np.float32) / 32768
    if desired_channels > 0:
        sound = sound[:, _np.minimum(_np.arange(desired_channels), channels - 1)]
    if desired_samples >= 0:
        sound = sound[:desired_samples]
        sound = _np.pad(sound, ((0, desired_samples - len(sound)), (0, 0)))
    return DecodeWav(_as_tensor(sound), _as_tensor(_np.array(rate, _np.int32)))


def encode_wav(audio: _Any, sample_rate: _Any, name: str | None = None) -> _Bytes:
    """The bytes of a WAV file of 16 bits of a sound (samples, channels) in [-1, 1].

    Raises InvalidArgumentError (a ValueError) for a sound of another rank.
    """
    sound = _np.asarray(audio, _np.float32)
    if sound.ndim != 2:
        raise _InvalidArgumentError(f"audio must be (samples, channels), not {sound.shape}")
    whole = _np.clip(_np.round(sound * 32768), -32768, 32767).astype("<i2")
    target = _io.BytesIO()
    with _wave.open(target, "wb") as file:
        file.setnchannels(sound.shape[1])
        file.setsampwidth(2)
        file.setframerate(int(sample_rate))
        file.writeframes(whole.tobytes())
    return _as_bytes(target.getvalue())


__getattr__ = _absent(__name__)
