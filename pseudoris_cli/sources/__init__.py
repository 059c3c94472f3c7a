"""Where images come from. One file per kind of source; each lists its images in a fixed order and mints their ids once."""
