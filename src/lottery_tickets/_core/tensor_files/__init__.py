"""Safetensors files that may be larger than memory: their headers, blocks of their tensors, new ones in order."""
