"""Search hyperparameters for a study and report the Pareto front."""

from lethe.interrupts import run_command

if __name__ == "__main__":
    run_command("lethe.cli.sweep")
