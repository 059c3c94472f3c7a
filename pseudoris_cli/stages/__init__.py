"""Policy of each stage: what it reads, which backends it asks, what it writes. No arithmetic, no files."""
