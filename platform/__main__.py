"""`python -m platform`: lists the commands.

With the standard module's own words (`--terse`, `nonaliased`, ...) it prints the
platform string, as the standard `python -m platform` does.
"""

import platform
import sys

from lethe.interrupts import run_command

STANDARD_WORDS = {"terse", "--terse", "nonaliased", "--nonaliased"}

if __name__ == "__main__":
    words = {word.removeprefix("--") for word in sys.argv[1:] if word in STANDARD_WORDS}
    if words and STANDARD_WORDS.issuperset(sys.argv[1:]):
        print(platform.platform("nonaliased" not in words, "terse" in words))
        raise SystemExit(0)
    run_command("lethe.cli.main", program="python -m platform")
