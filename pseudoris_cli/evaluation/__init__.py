"""Measuring masks and expressions against a known truth."""
