"""all-MiniLM-L6-v2 from its published weights: three i64[batch,sequence] to token and sentence embeddings."""

import numpy as np
from .builder import Builder, floats, longs

LAYERS, HEADS, WIDTH = 6, 12, 384
HEAD_WIDTH = WIDTH // HEADS


class _Encoder:
    """BERT's encoder, node by node; `state` holds the weights under their usual names."""

    def __init__(self, state):
        self.state, self.b = state, Builder()
        b = self.b
        self.axis0, self.axis1 = b.ints("axis0", [0]), b.ints("axis1", [1])
        self.split = b.ints("split_heads", [0, 0, HEADS, HEAD_WIDTH])
        self.merge = b.ints("merge_heads", [0, 0, WIDTH])
        self.scale = b.weight("scale", np.float32(1 / np.sqrt(HEAD_WIDTH)))
        self.one, self.half = b.weight("one", np.float32(1)), b.weight("half", np.float32(0.5))
        self.sqrt2 = b.weight("sqrt2", np.float32(np.sqrt(2)))

    def layer_norm(self, x, prefix):
        b = self.b
        parameters = [b.weight(f"{prefix}.{n}", self.state[f"{prefix}.{n}"]) for n in ("weight", "bias")]
        return b.op("LayerNormalization", [x, *parameters], axis=-1, epsilon=1e-12)

    def linear(self, x, prefix):
        b = self.b
        weight = b.weight(f"{prefix}.weight.T", self.state[f"{prefix}.weight"].T)
        return b.op("Add", [b.op("MatMul", [x, weight]), b.weight(f"{prefix}.bias", self.state[f"{prefix}.bias"])])

    def embeddings(self):
        """Word, type and position embeddings, normalized: [batch, sequence, WIDTH]."""
        b, table = self.b, lambda n: self.state[f"embeddings.{n}_embeddings.weight"]
        words = b.op("Gather", [b.weight("word_embeddings", table("word")), "input_ids"])
        types = b.op("Gather", [b.weight("type_embeddings", table("token_type")), "token_type_ids"])
        length = b.op("Slice", [b.op("Shape", ["input_ids"]), self.axis1, b.ints("end2", [2])])
        positions = b.weight("position_embeddings", table("position")[None])
        positions = b.op("Slice", [positions, self.axis0, length, self.axis1])
        summed = b.op("Add", [b.op("Add", [words, types]), positions])
        return self.layer_norm(summed, "embeddings.LayerNorm")

    def attention(self, x, bias, prefix):
        """Multi-head self-attention with an additive mask."""
        b = self.b

        def heads(name, order):
            split = b.op("Reshape", [self.linear(x, f"{prefix}attention.self.{name}"), self.split])
            return b.op("Transpose", [split], perm=order)

        query, key, value = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]), heads("value", [0, 2, 1, 3])
        scores = b.op("Mul", [b.op("MatMul", [query, key]), self.scale])
        weights = b.op("Softmax", [b.op("Add", [scores, bias])], axis=-1)
        context = b.op("Transpose", [b.op("MatMul", [weights, value])], perm=[0, 2, 1, 3])
        return self.linear(b.op("Reshape", [context, self.merge]), f"{prefix}attention.output.dense")

    def gelu(self, x):
        """x (1 + erf(x / sqrt 2)) / 2."""
        b = self.b
        erf = b.op("Erf", [b.op("Div", [x, self.sqrt2])])
        return b.op("Mul", [b.op("Mul", [x, b.op("Add", [erf, self.one])]), self.half])

    def layer(self, x, bias, prefix):
        b = self.b
        x = self.layer_norm(b.op("Add", [self.attention(x, bias, prefix), x]), f"{prefix}attention.output.LayerNorm")
        wide = self.gelu(self.linear(x, f"{prefix}intermediate.dense"))
        return self.layer_norm(b.op("Add", [self.linear(wide, f"{prefix}output.dense"), x]), f"{prefix}output.LayerNorm")

    def pool(self, x, mask):
        """Mean over the tokens that are not padding, then length 1."""
        b = self.b
        mask = b.op("Unsqueeze", [mask, b.ints("axis2", [2])])
        total = b.op("ReduceSum", [b.op("Mul", [x, mask]), self.axis1], keepdims=0)
        count = b.op("ReduceSum", [mask, self.axis1], keepdims=0)
        mean = b.op("Div", [total, b.op("Max", [count, b.weight("tiny", np.float32(1e-9))])])
        norm = b.op("ReduceL2", [mean], axes=[-1], keepdims=1)
        b.op("Div", [mean, norm], out="sentence_embedding")


def model(state):
    """The ONNX model of the weights."""
    encoder = _Encoder(state)
    b = encoder.b
    x = encoder.embeddings()
    mask = b.op("Cast", ["attention_mask"], to=1)  # to f32
    wide_mask = b.op("Unsqueeze", [mask, b.ints("axes12", [1, 2])])
    bias = b.op("Mul", [b.op("Sub", [encoder.one, wide_mask]), b.weight("masked", np.float32(-10000))])
    for number in range(LAYERS):
        x = encoder.layer(x, bias, f"encoder.layer.{number}.")
    b.op("Identity", [x], out="last_hidden_state")
    encoder.pool(x, mask)
    inputs = [longs(n, ["batch", "sequence"]) for n in ("input_ids", "attention_mask", "token_type_ids")]
    outputs = [floats("last_hidden_state", ["batch", "sequence", WIDTH]), floats("sentence_embedding", ["batch", WIDTH])]
    return b.model("all-MiniLM-L6-v2", inputs, outputs, 17)
