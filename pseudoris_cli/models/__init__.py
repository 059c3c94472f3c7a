"""One file per backend: `Settings`, `Settings.tiny()` and `load(settings, numerics, device)`. Importing one never imports torch."""
