"""What the tiny models are built with."""

import zlib

import numpy as np
import onnx
from onnx import helper

from build_models.builder import IR_VERSION, Builder

OPSET = 17


class Model(Builder):
    """A graph under construction, with inputs and seeded values of its own."""

    def __init__(self, name, opset):
        super().__init__()
        self.name, self.opset, self.inputs, self.feeds, self.outputs = name, opset, [], {}, []
        self.random = np.random.RandomState(zlib.crc32(name.encode()))

    def normal(self, *shape, scale=1.0):
        """In steps of 1/64, so that the files stay small."""
        return (np.rint(self.random.standard_normal(shape) * scale * 64) / 64).astype(np.float32)

    def feed(self, name, value):
        """A graph input and what it is fed with."""
        value = np.asarray(value)
        dtype = helper.np_dtype_to_tensor_dtype(value.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, dtype, value.shape))
        self.feeds[name] = value
        return name

    def x(self, *shape, scale=1.0, name="x"):
        """An input of seeded normal values."""
        return self.feed(name, self.normal(*shape, scale=scale))

    def w(self, *shape, scale=0.5):
        """A weight of seeded normal values."""
        return self.weight(f"w{len(self.initializers)}", self.normal(*shape, scale=scale))

    def give(self, kind, inputs, out=None, **attributes):
        """A node whose output is the graph's too."""
        out = out or f"y{len(self.outputs)}"
        self.outputs.append(out)
        return self.op(kind, inputs, out=out, **attributes)

    def finish(self):
        """The checked model; the types of its outputs are inferred."""
        untyped = [helper.make_empty_tensor_value_info(name) for name in self.outputs]
        graph = helper.make_graph(self.nodes, self.name, self.inputs, untyped, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=IR_VERSION,
                                  producer_name="glowplug-tests")
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model)
        del model.graph.value_info[:]
        return model


CASES = []


def case(name, plan, opset=OPSET):
    """Registers a function that builds the model `name`; `plan` names operators that its plan must hold."""
    def register(build):
        CASES.append((name, plan.split(), opset, build))
        return build
    return register
