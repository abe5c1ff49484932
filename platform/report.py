"""Write a study's report again, or join comparisons."""

from lethe.interrupts import run_command

if __name__ == "__main__":
    run_command("lethe.cli.report")
