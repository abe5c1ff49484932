"""Write a study for your own rows and model."""

from lethe.interrupts import run_command

if __name__ == "__main__":
    run_command("lethe.cli.init")
