"""One self-contained HTML page from the artifacts of a work directory: looked at, never read back."""
