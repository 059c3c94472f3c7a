"""The paper's arithmetic without I/O: matching, crops, scoring, selection, and the protocols that backends meet."""
