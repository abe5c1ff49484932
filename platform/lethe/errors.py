"""A user's mistakes: one line that names the culprit and the choices, exit code 2."""

import errno
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")

EXIT_USER_ERROR = 2
EXIT_RETRY_LATER = 75  # EX_TEMPFAIL of sysexits.h: try again later
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count


class UserError(Exception):
    """Something the user gave cannot work; the message says what, and what would."""


class StudyBrokenError(Exception):
    """What a study stands on failed: a machine, a disk, the cluster. What is finished is kept; `--resume` goes on."""

    def told(self) -> int:
        """Say so in one line; the exit code."""
        what = " ".join(str(self).split())
        line = f"lethe: {what}: what is finished is kept; the same command with --resume goes on"
        print(line, file=sys.stderr, flush=True)
        return EXIT_RETRY_LATER


class StoreUnreachableError(OSError):
    """A store of objects does not do what it was asked: what it said, and its address."""


def unknown_name(kind: str, given: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist: raise what this returns."""
    names = sorted(map(str, known))
    if not names:
        return UserError(f"unknown {kind} {given!r}: there are none")
    by_lower = {name.lower(): name for name in names}
    near = get_close_matches(str(given).lower(), by_lower, n=1)
    hint = f" (did you mean {by_lower[near[0]]!r}?)" if near else ""
    return UserError(f"unknown {kind} {given!r}{hint}: choose from {', '.join(names)}")


def exit_codes(main: Callable[P, int]) -> Callable[P, int]:
    """Turn a command's expected ends into exit codes; a bug keeps its traceback."""

    @wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print("lethe:", " ".join(str(error).split()), file=sys.stderr)
            return EXIT_USER_ERROR
        except StudyBrokenError as error:
            return error.told()
        except StoreUnreachableError as error:
            return StudyBrokenError(str(error)).told()
        except OSError as error:
            if error.errno not in DISK_FULL_ERRNOS:
                raise
            print(f"lethe: {error}: make room, then go on with what is finished", file=sys.stderr)
            return EXIT_RETRY_LATER
        except KeyboardInterrupt:
            print("lethe: interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED

    return guarded
