"""Models: loading and saving, adapters and their start, training of the embedded families."""
