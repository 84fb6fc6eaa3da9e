"""A small ONNX graph writer: weights by name, nodes named after their op and number."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IR_VERSION = 8


class Builder:
    """Collects nodes and initializers in order; `model` checks them and infers the shapes."""

    def __init__(self):
        self.nodes, self.initializers = [], []

    def weight(self, name, array):
        """Adds an initializer; 0-d arrays stay 0-d."""
        array = np.asarray(array)
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def ints(self, name, values):
        """An i64 initializer: axes, shapes, slice bounds."""
        return self.weight(name, np.array(values, np.int64))

    def op(self, kind, inputs, out=None, **attributes):
        """Adds a node and returns the name of its only output."""
        number = len(self.nodes) + 1
        out = out or f"{kind.lower()}_{number}"
        self.nodes.append(helper.make_node(kind, inputs, [out], name=f"{kind}_{number}", **attributes))
        return out

    def model(self, name, inputs, outputs, opset):
        """The checked model, with inferred shapes."""
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.initializers)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION, producer_name="glowplug-tests")
        onnx.checker.check_model(model)
        return onnx.shape_inference.infer_shapes(model)


def floats(name, shape):
    """The description of an f32 graph input or output."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def longs(name, shape):
    """The description of an i64 graph input."""
    return helper.make_tensor_value_info(name, TensorProto.INT64, shape)
