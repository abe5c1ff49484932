"""Rows of one's own to forget and to keep, with whatever else there is."""
