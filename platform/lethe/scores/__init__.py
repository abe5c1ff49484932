"""Scores of models that are not trained: found anywhere, measured once."""
