"""Give a trial's model an alias that stays, such as champion."""

from lethe.interrupts import run_command

if __name__ == "__main__":
    run_command("lethe.cli.promote")
