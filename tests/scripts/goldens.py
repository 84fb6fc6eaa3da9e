#!/usr/bin/env python3
"""Reference data for the tests, made by ONNX Runtime, Pillow and `tokenizers`: never by Glowplug itself.

usage: goldens.py --cache DIR [--check]

DIR is what `cargo xtask models --all` filled (tests/scripts/README.md). Everything is seeded: a second run
writes the same arrays. `--check` writes nothing; it makes everything anew and compares it with tests/data,
integers and texts exactly, floats within 1e-5 of the largest value (another CPU may sum in another order).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image, ImageDraw, ImageFont
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

import anchors
from files import DATA, Files
from int8 import int8
from integers import integers
from mnist import held_out
from ops import ops
from pipelines import pipelines
from pruned import pruned
from quantized import quantized

VENDORED = DATA / "models"
SMALL_LENGTH = 16


def session(model):
    """A model's path or bytes. One thread and no rewriting of the graph: the plainest run that ONNX Runtime offers."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"])


def run(model, feeds):
    """All outputs of the model (a path, or bytes), by their ONNX names."""
    s = session(model)
    names = [o.name for o in s.get_outputs()]
    return dict(zip(names, s.run(names, feeds)))


def golden(files, model, path, feeds, suffix="", keep=lambda outputs: outputs):
    """Input and reference output of one model; `keep` is what is kept of the outputs."""
    files.arrays(f"goldens/{model}/input{suffix}.npz", feeds)
    files.arrays(f"goldens/{model}/output{suffix}.npz", keep(run(path, feeds)))


def rounded(outputs):
    """To multiples of 2^-20, far below the tolerance: a map of probabilities then deflates to a few kilobytes."""
    return {name: (np.round(v * 2**20) / 2**20).astype(np.float32) for name, v in outputs.items()}


def digits(files, cache):
    """Held-out digits as PNGs, with ONNX Runtime's answer for exactly these pixels; the first is a golden too."""
    images, labels = held_out(cache)
    chosen = [i for d in range(10) for i in np.flatnonzero(labels == d)[:2]] + list(range(200, 204))
    model = VENDORED / "mnist-cnn.onnx"
    table = []
    for n, i in enumerate(chosen):
        pixels = np.rint(images[i, 0] * 255).astype(np.uint8)
        feeds = {"image": (pixels[None, None] / np.float32(255)).astype(np.float32)}
        if n == 0:
            golden(files, "mnist-cnn", model, feeds)
        logits = run(model, feeds)["logits"][0]
        name = f"{n:02}-{labels[i]}.png"
        files.image(f"digits/{name}", pixels)
        row = {"file": name, "label": int(labels[i]), "top1": int(logits.argmax())}
        table.append(row | {"logits": [float(v) for v in logits]})
    files.document("digits/digits.json", {"model": "mnist-cnn", "input": "image", "scale": "pixel / 255", "digits": table})


def line():
    """A rendered text line in three different channels, so that RGB taken for BGR would show: u8[48,192,3]."""
    image = Image.new("RGB", (192, 48), (250, 236, 205))
    font = ImageFont.load_default(size=30)
    ImageDraw.Draw(image).text((8, 4), "Glowplug 42", fill=(28, 60, 140), font=font)
    return np.asarray(image)


def lines(files):
    """Text lines for ppocr-cls; its pipeline is BGR, then (x / 255 - 0.5) / 0.5.

    `blended` shows upright and turned text at once: scores far from 0 and 1 tell most, so it is the golden.
    """
    upright, turned = line(), line()[::-1, ::-1]
    blended = np.rint(0.6 * upright + 0.4 * turned).astype(np.uint8)
    model, table = VENDORED / "ppocr-cls.onnx", []
    for name, pixels, label in (("upright", upright, "0"), ("turned", turned, "180"), ("blended", blended, None)):
        bgr = pixels[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)
        feeds = {"x": (bgr / np.float32(255) - np.float32(0.5)) / np.float32(0.5)}
        if name == "blended":
            golden(files, "ppocr-cls", model, feeds)
        (scores,) = run(model, feeds).values()
        files.image(f"lines/{name}.png", np.ascontiguousarray(pixels))
        top1 = ["0", "180"][int(scores[0].argmax())]
        table.append({"file": f"{name}.png", "label": label, "top1": top1, "scores": [float(v) for v in scores[0]]})
    files.document("lines/lines.json", {"model": "ppocr-cls", "input": "x", "lines": table})


def networks(files, cache):
    """The networks that look at pictures, pages, lines and bytes."""
    for model, feeds, keep in [
        ("efficientnet-lite0", {"input": anchors.picture()}, None),
        ("mobilenetv2", {"input": anchors.picture(2, seed=21)}, None),
        ("resnet50", {"input": anchors.picture(2, seed=22)}, None),
        ("ppocrv4-rec", {"x": anchors.text_line()}, rounded),
        ("ppocrv4-det", {"x": anchors.page()}, rounded),
        ("magika-v3_3", {"bytes": anchors.source_text()}, None),
    ]:
        golden(files, model, cache / f"{model}.onnx", feeds, **({"keep": keep} if keep else {}))


def silero(files):
    """A sequence of six frames that begins in some state, and one frame in the state that another left behind."""
    frames, random = anchors.voice(6), np.random.RandomState(6)
    state = {name: (random.standard_normal((1, 1, 128)) * 0.1).astype(np.float32) for name in "hc"}
    model = VENDORED / "silero-vad-16k-sequence.onnx"
    golden(files, model.stem, model, {"input": frames} | state)
    model, state = VENDORED / "silero-vad-openvino-16k.onnx", np.zeros((2, 1, 128), np.float32)
    left = run(model, {"input": frames[:1], "state": state})["stateN"]
    golden(files, model.stem, model, {"input": frames[1:2], "state": left})


def tabular(files, cache):
    """Eight held-out rows of scikit-learn's digits."""
    with np.load(cache / "data" / "tab_digits_mlp_test.npz") as held_out_rows:
        feeds = {"X": held_out_rows["X"][:8]}
    golden(files, "tab_digits_mlp", VENDORED / "tab_digits_mlp.onnx", feeds)


def sentences(files, cache):
    """Texts through MiniLM's own tokenizer: one padded to 16 tokens, so that the mask ends in zeros, and longer ones.

    Of the longer ones only the embedding is kept: it is the mean of what is left out.
    """
    model = "minilm-l6-v2-f32"
    for length, padding in [(SMALL_LENGTH, None), *anchors.LENGTHS]:
        fields = encoding_fields(anchors.sentence(cache, length, padding))
        feeds = {k: np.array([fields[k]], np.int64) for k in ("input_ids", "attention_mask", "token_type_ids")}
        if padding is None:
            assert 0 in fields["attention_mask"], "the golden must cover masked positions"
            golden(files, model, cache / f"{model}.onnx", feeds)
            # Another export of it, with its weights as integers.
            golden(files, "minilm-l6-v2-int8w", cache / "minilm-l6-v2-int8w.onnx", feeds)
            document = {"text": anchors.SENTENCE, "length": length} | fields
            files.document(f"goldens/{model}/text.json", document)
            continue
        embedding = (lambda o: {"sentence_embedding": o["sentence_embedding"]}) if length > 32 else (lambda o: o)
        golden(files, model, cache / f"{model}.onnx", feeds, f"-{length}", embedding)


def encoding_fields(encoding):
    """The fields of one encoding under the names of the transformers' inputs."""
    return {"tokens": encoding.tokens, "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask, "token_type_ids": encoding.type_ids}


def small_tokenizer():
    """A WordPiece tokenizer built as BERT's is (uncased), over a vocabulary of a few dozen pieces."""
    pieces = "[PAD] [UNK] [CLS] [SEP] [MASK]".split()
    pieces += list("abcdefghijklmnopqrstuvwxyz0123456789.,!?'-")
    pieces += [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
    pieces += "the is it cold start glow plug engine model warm first un ##able ##ing ##ed ##er hello world cafe".split()
    pieces += ["你", "好"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    assert len(vocabulary) == len(pieces), "a piece is there twice"
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.add_special_tokens("[PAD] [UNK] [CLS] [SEP] [MASK]".split())
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


SMALL_TEXTS = [
    "", "hello world", "Hello, World!", "The glow plug is cold.", "Caf\u00e9 starting", "unstartable engines",
    "it's a 42-cylinder engine?", "\u4f60\u597d hello", "snow\u2603man", "tab\tand\nnewline", "  spaces   inside  ",
    "naked \u0000 control", "the model is warm the model is warm the model is warm the model is warm", "x" * 101,
]


def tokenizer_small(files):
    """The tokenizer.json of the unit tests and what the reference library makes of some texts."""
    tokenizer = small_tokenizer()
    files.text("tokenizer-small.json", tokenizer.to_str(pretty=False) + "\n")
    plain = [encoding_fields(tokenizer.encode(text)) for text in SMALL_TEXTS]
    tokenizer.enable_truncation(SMALL_LENGTH)
    tokenizer.enable_padding(length=SMALL_LENGTH, pad_id=0, pad_token="[PAD]")
    fixed = [encoding_fields(tokenizer.encode(text)) for text in SMALL_TEXTS]
    rows = [{"text": t, "plain": p, "fixed": f} for t, p, f in zip(SMALL_TEXTS, plain, fixed)]
    files.document("tokenizer-small.encodings.json", {"fixed_length": SMALL_LENGTH, "encodings": rows})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder filled by `cargo xtask models --all`")
    parser.add_argument("--check", action="store_true", help="compare with tests/data instead of writing")
    arguments = parser.parse_args()
    files = Files(arguments.check)
    digits(files, arguments.cache)
    lines(files)
    networks(files, arguments.cache)
    silero(files)
    tabular(files, arguments.cache)
    sentences(files, arguments.cache)
    pipelines(files)
    tokenizer_small(files)
    ops(files, run)
    quantized(files, run)
    pruned(files, run)
    int8(files, run)
    integers(files, run)
    if files.differences:
        sys.exit("differs from tests/data: " + ", ".join(files.differences))
    print(f"{files.count} files {'compared, all the same' if arguments.check else 'written'}")


if __name__ == "__main__":
    main()
