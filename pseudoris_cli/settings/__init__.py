"""Settings: their models, how a value is resolved from all layers, and the files that travel with the code."""
