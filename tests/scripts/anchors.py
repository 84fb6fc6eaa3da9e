"""Inputs of the anchor models: seeded, rendered or synthesized, each as the model's own preprocessing wants it."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tokenizers import Tokenizer

from mnist import __file__ as SOURCE_TEXT
from pipelines import discs

SENTENCE = "A glow plug warms the engine before its first start."
LONG_TEXT = " ".join([
    SENTENCE, "Cold air, thick oil and a tired battery make it turn slowly, and what is not yet warm will not burn.",
    "So a coil of wire glows for a moment, and the rest follows by itself!",
    "Machines that answer rarely are like that: most of what they do is to get ready.",
    "Whatever can be decided beforehand is decided beforehand; what is left is to read, to map and to multiply.",
    "Does it pay off? Measure it: 1,000 starts, the median and the slowest of each hundred, on one core.",
    "Numbers that nobody measured are opinions, and opinions do not start engines in January.",
    "If the second start is much faster than the first one, then the first one paid for something that could have",
    "been kept. Keep it, write down where it is kept, and let the next reader check that it is still the same.",
])
# (tokens, padding among them)
LENGTHS = [(24, 3), (32, 0), (64, 5), (128, 17), (256, 70)]


def picture(discs_drawn=24, seed=20):
    """f32[1,3,224,224] of 8-bit values, (x - 127) / 128."""
    return chw((discs(224, 224, discs_drawn, seed).astype(np.float32) - 127) / 128)


def chw(pixels):
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def sentence(cache, length, padding=None):
    """One encoding of `length` tokens; the padding is as it comes, or that many tokens."""
    tokenizer = Tokenizer.from_file(str(cache / "tokenizer.json"))
    text, limit = (SENTENCE, length) if padding is None else (LONG_TEXT, length - padding)
    tokenizer.enable_truncation(limit)
    tokenizer.enable_padding(length=length, pad_id=0, pad_token="[PAD]")
    encoding = tokenizer.encode(text)
    assert padding is None or encoding.attention_mask.count(0) == padding, "the text is too short"
    return encoding


def text_line():
    """A line for ppocrv4-rec, BGR, (x / 255 - 0.5) / 0.5: f32[1,3,48,320]."""
    image = Image.new("RGB", (320, 48), (246, 240, 228))
    ImageDraw.Draw(image).text((8, 3), "Glow plug, 42 starts", fill=(36, 40, 90), font=ImageFont.load_default(size=31))
    bgr = np.asarray(image)[:, :, ::-1].astype(np.float32)
    return chw((bgr / np.float32(255) - np.float32(0.5)) / np.float32(0.5))


def page():
    """A page of three lines for ppocrv4-det, BGR, (x / 255 - mean) / deviation: f32[1,3,320,320]."""
    image = Image.new("RGB", (320, 320), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for y, size, text in [(24, 36, "GLOW PLUG"), (110, 24, "ready in one second"), (220, 48, "12:45")]:
        draw.text((20, y), text, fill=(0, 0, 0), font=ImageFont.load_default(size=size))
    bgr = np.asarray(image)[:, :, ::-1].astype(np.float32) / np.float32(255)
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return chw((bgr - mean) / deviation)


def source_text():
    """A source text that never changes, as Magika takes it."""
    with open(SOURCE_TEXT, "rb") as f:
        return content_features(f.read())


def content_features(content):
    """The first and the last 1024 bytes of a file, white space at its ends left out, as Magika takes them: i32[1,2048]."""
    first, last = content[:4096].lstrip()[:1024], content[-4096:].rstrip()[-1024:]
    padding = 256
    first = list(first) + [padding] * (1024 - len(first))
    last = [padding] * (1024 - len(last)) + list(last)
    return np.array([first + last], np.int32)


def voice(frames):
    """A vowel said for `frames` frames of 512 samples at 16 kHz, each with the 64 samples before it: f32[frames,576].

    Pulses of a gliding pitch through three resonances, with breath: what a voice is made of, no recording of one.
    """
    rate, random = 16000, np.random.RandomState(5)
    n = frames * 512 + 64
    pitch = 120 + 25 * np.sin(2 * np.pi * 3 * np.arange(n) / rate)
    phase = np.cumsum(pitch / rate)
    sound = (np.diff(np.floor(phase), prepend=0) > 0) + 0.01 * random.standard_normal(n)
    for frequency, width in [(730, 90), (1090, 110), (2440, 160)]:
        radius, angle = np.exp(-np.pi * width / rate), 2 * np.pi * frequency / rate
        a1, a2, y1, y2 = 2 * radius * np.cos(angle), -radius * radius, 0.0, 0.0
        for i in range(n):
            y1, y2 = sound[i] + a1 * y1 + a2 * y2, y1
            sound[i] = y1
    sound = np.rint(sound / np.abs(sound).max() * 0.5 * 32767).astype(np.int16)
    samples = sound.astype(np.float32) / np.float32(32768)
    return np.stack([samples[i * 512:i * 512 + 576] for i in range(frames)])
