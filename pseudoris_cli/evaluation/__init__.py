"""Measure masks and expressions against a ground truth."""
