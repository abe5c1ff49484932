"""Scaling studies: designs, measurements, fits and predictions of how cost and quality of unlearning grow."""
