"""One file per backend: `Settings`, `Settings.tiny()`, `load(settings, numerics, device)`. Importing one imports no torch."""
