"""Exported graphs as models: ONNX, OpenVINO, torch.export; and what follows from how their operations are connected."""
