"""How cost and quality of unlearning grow: designs, measurements, fits, predictions."""
