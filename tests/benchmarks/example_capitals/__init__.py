"""A whole benchmark as small as it can be: docs/CONTRIBUTING.md shows it, and the conformance suite runs it."""
