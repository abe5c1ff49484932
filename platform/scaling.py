"""Measure how cost and quality of unlearning grow with the model, and predict what was not tried."""

from lethe.cli.scaling import main

if __name__ == "__main__":
    raise SystemExit(main())
