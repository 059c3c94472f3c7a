"""The demo world: rendered scenes with known objects, and the weights of tiny networks trained on them (`training/`)."""
