"""Pure-numpy metrics over shared forward passes."""
