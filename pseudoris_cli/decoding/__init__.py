"""The incremental caption decoder: distinctive caption sampling and beam search on open_clip CoCa weights."""
