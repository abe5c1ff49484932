"""Faults that users of similar software reported: what happens here instead."""
