"""One export format per file, named like the format; `export/base.py` describes what a file must define."""
