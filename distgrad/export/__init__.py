"""Trained models for phones, browsers and boards: ONNX files, run beside the model they are of."""
