"""The embedded world: rendered scenes whose every object is known, and tiny networks trained on them (`training/`)."""
