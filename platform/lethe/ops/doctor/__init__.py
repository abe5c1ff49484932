"""Checks of everything that a study needs: on this machine, on every node, in the services."""
