"""Write the deletion record of a model, or verify one."""

from lethe.interrupts import run_command

if __name__ == "__main__":
    run_command("lethe.cli.record")
