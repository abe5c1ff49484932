"""Score models side by side: folders, hub ids, versions."""

from lethe.interrupts import run_command

if __name__ == "__main__":
    run_command("lethe.cli.score")
