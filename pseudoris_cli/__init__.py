"""pseudoris: unlabeled images in, training data for referring image segmentation out."""

__version__ = "0.1.0"
