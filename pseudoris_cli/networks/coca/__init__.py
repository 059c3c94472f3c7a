"""Building CoCa and its configurations; its decoding is in `decoding`."""
