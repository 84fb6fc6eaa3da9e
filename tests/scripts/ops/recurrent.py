"""Loops and steps of LSTMs and RNNs."""

from onnx import helper

from .model import case


def recurrent(m, kind, gates, steps, direction, batch=1, inputs=3, hidden=4, state=True, fed=False):
    directions = 2 if direction == "bidirectional" else 1
    shape = directions, gates * hidden
    weights = m.x(*shape, inputs, scale=0.5, name="w") if fed else m.w(*shape, inputs)
    operands = [m.x(steps, batch, inputs), weights, m.w(*shape, hidden), m.w(directions, 2 * gates * hidden)]
    if state:
        operands += ["", m.x(directions, batch, hidden, name="h")]
        operands += [m.x(directions, batch, hidden, name="c")] if kind == "LSTM" else []
    outs = ["y", "y_h"] + (["y_c"] if kind == "LSTM" else [])
    m.outputs += outs
    m.nodes.append(helper.make_node(kind, operands, outs, name=kind, hidden_size=hidden, direction=direction))


for name, plan, kind, gates, steps, direction, options in [
    ("lstm", "Scan", "LSTM", 4, 5, "forward", {}),
    ("lstm-reverse", "Scan", "LSTM", 4, 5, "reverse", {}),
    ("lstm-bidirectional", "Scan Concat", "LSTM", 4, 5, "bidirectional", {}),
    ("lstm-batch", "Scan", "LSTM", 4, 4, "forward", {"batch": 3}),
    ("lstm-no-state", "Scan", "LSTM", 4, 4, "forward", {"state": False}),
    ("lstm-fed-weights", "Scan", "LSTM", 4, 4, "forward", {"fed": True}),
    ("lstm-one-step", "LstmCell", "LSTM", 4, 1, "forward", {}),
    ("rnn", "Scan", "RNN", 1, 5, "forward", {}),
    ("rnn-reverse", "Scan", "RNN", 1, 5, "reverse", {}),
]:
    @case(name, plan)
    def _(m, kind=kind, gates=gates, steps=steps, direction=direction, options=options):
        recurrent(m, kind, gates, steps, direction, **options)
