"""CoCa: its configurations and construction; decoding is in `pseudoris_cli.decoding`."""
