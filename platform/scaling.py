"""Measure how cost and quality grow with the model, and predict."""

from lethe.interrupts import run_command

if __name__ == "__main__":
    run_command("lethe.cli.scaling")
