"""Checkpoints: the registry, fetching, reading tensors without running code, and licences."""
