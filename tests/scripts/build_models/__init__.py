"""ONNX models from published weights, or trained here, without torch: one module per model."""
