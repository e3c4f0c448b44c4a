"""Checkpoints: save, load, manifest, golden outputs, verification, ONNX."""
