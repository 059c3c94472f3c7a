"""Training a listener on the captions that a work directory kept, without any truth."""
