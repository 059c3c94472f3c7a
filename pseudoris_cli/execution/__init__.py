"""Where a stage's worker runs: in this process, or as Ray actors."""
