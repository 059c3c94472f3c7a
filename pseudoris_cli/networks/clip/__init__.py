"""The text tower's exact rewriting and the configurations of CLIP."""
