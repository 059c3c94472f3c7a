"""CLIP: its configurations and an exact rewriting of the text tower."""
