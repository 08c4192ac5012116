"""Encoders for other tools: transformers, timm, ONNX, torch.export, the hub."""
