"""Loading, the embedded model, adapters, saving."""
