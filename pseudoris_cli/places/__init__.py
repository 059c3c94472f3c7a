"""Places that hold large files with images in them: a folder, a pattern of paths, or a URL that fsspec can open."""
