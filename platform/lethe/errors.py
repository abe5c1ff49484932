"""A user's mistakes: one line that names the culprit and the choices, exit code 2."""

import errno
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")

BAD_INPUT = 2
BROKEN = 75  # EX_TEMPFAIL of sysexits.h: try again later
FULL = (errno.ENOSPC, errno.EDQUOT)
INTERRUPTED = 130  # 128 + SIGINT, as shells count


class BadInput(Exception):
    """Something the user gave cannot work; the message says what, and what would."""


class Broken(Exception):
    """What a study stands on failed: a machine, a disk, the cluster. What is finished is kept; `--resume` goes on."""

    def told(self) -> int:
        """Say so in one line; the exit code."""
        what = " ".join(str(self).split())
        line = f"lethe: {what}: what is finished is kept; the same command with --resume goes on"
        print(line, file=sys.stderr, flush=True)
        return BROKEN


class Unreachable(OSError):
    """A store of objects does not do what it was asked: what it said, and its address."""


def choices(kind: str, given: str, known: Iterable[str]) -> BadInput:
    """The error for a name that does not exist: raise what this returns."""
    names = sorted(map(str, known))
    if not names:
        return BadInput(f"unknown {kind} {given!r}: there are none")
    by_lower = {name.lower(): name for name in names}
    near = get_close_matches(str(given).lower(), by_lower, n=1)
    hint = f" (did you mean {by_lower[near[0]]!r}?)" if near else ""
    return BadInput(f"unknown {kind} {given!r}{hint}: choose from {', '.join(names)}")


def guard(main: Callable[P, int]) -> Callable[P, int]:
    """Turn a command's expected ends into exit codes; a bug keeps its traceback."""

    @wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except BadInput as error:
            print("lethe:", " ".join(str(error).split()), file=sys.stderr)
            return BAD_INPUT
        except Broken as error:
            return error.told()
        except Unreachable as error:
            return Broken(str(error)).told()
        except OSError as error:
            if error.errno not in FULL:
                raise
            print(f"lethe: {error}: make room, then go on with what is finished", file=sys.stderr)
            return BROKEN
        except KeyboardInterrupt:
            print("lethe: interrupted", file=sys.stderr)
            return INTERRUPTED

    return guarded
