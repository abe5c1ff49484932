"""Rows of text, their templates and batches."""
