"""Segment Anything: the automatic mask generator, its exact decoder rewritings, run lengths."""
