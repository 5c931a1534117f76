"""Pose extraction: frames to people, by published ONNX networks. Needs the package onnxruntime, imported when it is used."""
