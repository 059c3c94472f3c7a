"""The formats that training code reads: one renderer per file, named like the format (base.py is the protocol)."""
