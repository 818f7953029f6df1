"""Turns image sets into one self-describing ONNX file."""
