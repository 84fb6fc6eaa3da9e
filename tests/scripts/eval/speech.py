"""Silero VAD: recorded prompts with pauses between them under noise, and which frames are speech.

A frame is speech where the clean recording is loud, or is soon loud again. Noise goes over all of it afterwards, so that
loudness alone does not tell. Both exports see the same stream; so that samples can be run in any order, each
carries the state that ONNX Runtime in f32 has reached before it. That is also why samples may be left out:
those near a border between speech and pause, where a frame is both.
"""

import wave

import numpy as np
from scipy.signal import resample_poly

from dataset import Dataset
from runtime import Model

# The model's frame, and what it wants to see of the one before.
FRAME, CONTEXT = 512, 64
# Frames in a sample of the sequence export.
SEQUENCE = 6
EVALUATION, CALIBRATION = 8400, 960
# A prompt's speech is within this many decibels of its loudest frame.
THRESHOLD = -32
# Frames: a shorter silence within speech is speech, and so far from a border it is clear what a frame is.
SILENCE, BORDER = 6, 2
# Of the loudest frame over the noise, in decibels.
SNR = (12, 30)
# What is in the package and is no speech.
OTHER = ["beep", "tone", "silence", "ring", "confbridge-join", "confbridge-leave", "monkeys"]


def datasets(root):
    paths = [p for p in sorted((root / "data" / "speech").rglob("*.wav")) if not any(o in p.name or o in p.parent.name for o in OTHER)]
    random = np.random.RandomState(8)
    prompts = iter([paths[i] for i in random.permutation(len(paths))])
    evaluation, labels = stream(prompts, EVALUATION, random)
    calibration, _ = stream(prompts, CALIBRATION, random)
    return [sequence(root, calibration, evaluation, labels), single(root, calibration, evaluation, labels)]


def stream(prompts, frames, random):
    """(f32[frames,576], i64[frames]): as many of the next prompts as are needed."""
    clean, noise = [], []
    while sum(map(len, clean)) < frames * FRAME + CONTEXT:
        prompt = recording(next(prompts))
        piece = np.concatenate([np.zeros(random.randint(3, 40) * FRAME, np.float32), prompt])
        piece = piece[:len(piece) // FRAME * FRAME]
        piece *= random.uniform(0.1, 0.9) / np.abs(piece).max()
        level = loudness(piece).max() * 10 ** (-random.uniform(*SNR) / 20)
        clean.append(piece)
        noise.append(pink(len(piece), random) * level)
    labels = np.concatenate([speech(loudness(piece)) for piece in clean])[:frames]
    samples = np.concatenate(clean) + np.concatenate(noise)
    samples = np.rint(np.clip(samples, -1, 1) * 32767).astype(np.float32) / np.float32(32768)
    samples = np.concatenate([np.zeros(CONTEXT, np.float32), samples])
    return np.stack([samples[i * FRAME:(i + 1) * FRAME + CONTEXT] for i in range(frames)]), labels


def recording(path):
    """One prompt at 16 kHz; the files have 8."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000), path
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return resample_poly(samples.astype(np.float64) / 32768, 2, 1).astype(np.float32)


def loudness(samples):
    """The root mean square of every frame."""
    return np.sqrt((samples.reshape(-1, FRAME).astype(np.float64) ** 2).mean(axis=1))


def speech(levels):
    """Whether each frame is speech: 0 or 1."""
    labels = (levels > levels.max() * 10 ** (THRESHOLD / 20)).astype(np.int64)
    loud = np.flatnonzero(labels)
    for before, after in zip(loud, loud[1:]):
        if after - before <= SILENCE:
            labels[before:after] = 1
    return labels


def clear(labels):
    """Which samples of SEQUENCE frames are away from all borders."""
    doubtful = np.zeros(len(labels), bool)
    for border in np.flatnonzero(np.diff(labels)) + 1:
        doubtful[max(0, border - BORDER):border + BORDER] = True
    return ~doubtful.reshape(-1, SEQUENCE).any(axis=1)


def pink(count, random):
    """Noise of power 1 that falls by 3 dB an octave."""
    spectrum = np.fft.rfft(random.standard_normal(count))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, count)
    return (noise / np.sqrt((noise**2).mean())).astype(np.float32)


def sequence(root, calibration, evaluation, labels):
    """Six frames a sample; h and c from one to the next."""
    name, states = "silero-vad-16k-sequence", {"h": "hn", "c": "cn"}
    model, kept = Model(root / f"{name}.onnx"), clear(labels)
    calibration, evaluation = (carried(model, f.reshape(-1, SEQUENCE, f.shape[1]), states) for f in (calibration, evaluation))
    labels = {"label": labels.reshape(-1, SEQUENCE)}
    return Dataset(name, calibration, {n: v[kept] for n, v in (evaluation | labels).items()})


def single(root, calibration, evaluation, labels):
    """One frame a sample; one state from one to the next. The same frames as in `sequence`."""
    name, states = "silero-vad-openvino-16k", {"state": "stateN"}
    model, kept = Model(root / f"{name}.onnx"), clear(labels).repeat(SEQUENCE)
    calibration, evaluation = (flat(carried(model, f[:, None], states)) for f in (calibration, evaluation))
    return Dataset(name, calibration, {n: v[kept] for n, v in (evaluation | {"label": labels}).items()})


def flat(members):
    """The input without the axis of one frame."""
    return members | {"input": members["input"][:, 0]}


def carried(model, samples, states):
    """The members of a stream's samples: `states` maps each state's input to the output it is carried from."""
    shapes = {i.name: i.shape for i in model.session.get_inputs()}
    state = {name: np.zeros(shapes[name], np.float32) for name in states}
    kept = {name: [] for name in states}
    for frames in samples:
        for name in states:
            kept[name].append(state[name])
        outputs = model.run({"input": frames} | state)
        state = {name: outputs[output] for name, output in states.items()}
    return {"input": samples} | {name: np.stack(values) for name, values in kept.items()}
