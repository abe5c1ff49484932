"""Errors with one line for the user, and the exit codes of the commands."""

import errno
import io
import os
import select
import sys
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")

EXIT_NO_RESULT = 1  # a study ended, and none of its trials has a result
EXIT_USER_ERROR = 2
EXIT_RETRY_LATER = 75  # EX_TEMPFAIL of sysexits.h: try again later
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
# A path that cannot be used as it is asked for: no permission, too long, a folder for a file, a file for a folder.
PATH_ERRNOS = (errno.EACCES, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EROFS)
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count
EXIT_UNREAD = 141  # 128 + SIGPIPE: whoever read the output has gone
NO_HOME = "Could not determine home directory."  # pathlib's words, in a RuntimeError


class UserError(Exception):
    """A value that the user gave cannot work. The message names it and what would work. Exit code 2."""


class StudyBrokenError(Exception):
    """A machine, a disk or the cluster failed under a study. Finished trials are kept; `--resume` continues. Exit code
    75."""

    def print_and_exit_code(self) -> int:
        """Print the error in one line and return the exit code."""
        reason = " ".join(str(self).split())
        line = f"lethe: {reason}: what is finished is kept; the same command with --resume goes on"
        print(line, file=sys.stderr, flush=True)
        return EXIT_RETRY_LATER


class StoreUnreachableError(OSError):
    """An object store failed a request. The message has the store's answer and its address."""


def first_line(error: BaseException) -> str:
    """Return the first line of the error's message, with the next one where it ends in a colon; the name of the error's
    type where the message is empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 1 + lines[0].endswith(":")])


def first_names(names: Sequence[str], most: int = 3) -> str:
    """Return the first `most` names with commas, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def unknown_name(kind: str, given: str, known: Iterable[str]) -> UserError:
    """Return, for the caller to raise, the error for a name that does not exist: it has the nearest name and all known
    ones. `kind` says what the name is of, such as "metric"."""
    names = sorted(map(str, known))
    if not names:
        return UserError(f"unknown {kind} {given!r}: there are none")
    by_lower = {name.lower(): name for name in names}
    near = get_close_matches(str(given).lower(), by_lower, n=1)
    hint = f" (did you mean {by_lower[near[0]]!r}?)" if near else ""
    return UserError(f"unknown {kind} {given!r}{hint}: choose from {', '.join(names)}")


def exit_codes(main: Callable[P, int]) -> Callable[P, int]:
    """Decorate a command so that its expected errors become one line and an exit code; a bug keeps its traceback."""

    @wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        _print_any_text()
        try:
            try:
                code = _run(main, *args, **kwargs)
            finally:
                flush_output()
        except BrokenPipeError:
            if not _unread():
                raise
            silence_output()
            return EXIT_UNREAD
        return EXIT_UNREAD if _silenced else code

    return guarded


def _run(main: Callable[P, int], *args: P.args, **kwargs: P.kwargs) -> int:
    try:
        return main(*args, **kwargs)
    except UserError as error:
        return _print_refusal(str(error))
    except StudyBrokenError as error:
        return error.print_and_exit_code()
    except StoreUnreachableError as error:
        return StudyBrokenError(str(error)).print_and_exit_code()
    except RuntimeError as error:
        if str(error) != NO_HOME:
            raise
        return _print_refusal(
            "no home folder is known, for this user or for the one that a path with ~ names: set HOME, "
            "or write whole paths, LETHE_HOME's too"
        )
    except OSError as error:
        if error.errno in PATH_ERRNOS and error.filename is not None:
            return _print_refusal(f"{_shortened(str(error.filename))}: {error.strerror}")
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        print(f"lethe: {error}: make room, then go on with what is finished", file=sys.stderr)
        return EXIT_RETRY_LATER
    except KeyboardInterrupt:
        if not _silenced:
            print("lethe: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _print_refusal(reason: str) -> int:
    """Print a user's mistake in one line and return the exit code."""
    print("lethe:", " ".join(reason.split()), file=sys.stderr)
    return EXIT_USER_ERROR


def _shortened(path: str) -> str:
    return path if len(path) <= 200 else f"{path[:100]}...{path[-60:]}"


_silenced = False


def silence_output() -> None:
    """Write to nowhere what goes to a pipe that nobody reads any more, standard output or standard error. A command
    that `exit_codes` decorates then ends with EXIT_UNREAD."""
    global _silenced
    _silenced = True
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in _unread():
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _unread() -> list[int]:
    """Return the descriptors of standard output and standard error that are pipes without a reader."""
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)
    return [stream for stream, event in poll.poll(0) if event & select.POLLERR]


def flush_output() -> None:
    """Write what is buffered of standard output and standard error."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _print_any_text() -> None:
    """Show characters that the output's encoding lacks, such as those of a file's name, as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
