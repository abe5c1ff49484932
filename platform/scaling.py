"""Measure how cost and quality of unlearning grow with the model, and predict what was not tried."""

from lethe.interrupts import run_command

if __name__ == "__main__":
    run_command("lethe.cli.scaling")
