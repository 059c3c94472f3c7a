"""Bytes of other people's formats, all of them untrusted input: images, pickles, LMDB, Arrow's old serialisation."""
