"""Search unlearning hyperparameters for a study and report the Pareto front."""

from lethe.cli.sweep import main

if __name__ == "__main__":
    raise SystemExit(main())
