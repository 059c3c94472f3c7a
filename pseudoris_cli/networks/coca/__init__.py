"""CoCa: its configurations and construction; decoding is in `pseudoris_cli.decoding`."""

from pseudoris_cli.networks.coca.build import build_coca

__all__ = ["build_coca"]
