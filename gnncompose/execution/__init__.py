"""Real execution of compositions in ONNX Runtime."""
