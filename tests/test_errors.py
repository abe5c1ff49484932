"""A user's mistake is one line and exit code 2; a bug keeps its traceback."""

import errno

import pytest

from lethe.cli.main import main
from lethe.errors import StudyBrokenError, UserError, exit_codes, unknown_name


def test_choices_name_the_culprit_all_that_exists_and_the_nearest() -> None:
    message = str(unknown_name("study", "Tofuu", {"tofu": 1, "soul": 2, "loku": 3}))
    assert message == "unknown study 'Tofuu' (did you mean 'tofu'?): choose from loku, soul, tofu"
    assert str(unknown_name("study", "zzz", ["b", "a"])) == "unknown study 'zzz': choose from a, b"
    assert str(unknown_name("study", "x", [])) == "unknown study 'x': there are none"


def test_guard_makes_bad_input_one_line_and_exit_code_2(capsys: pytest.CaptureFixture) -> None:
    @exit_codes
    def command(text: str) -> int:
        raise UserError(text)

    assert command("first\n  second") == 2
    assert capsys.readouterr() == ("", "lethe: first second\n")


def test_guard_makes_what_broke_one_line_and_exit_code_75(capsys: pytest.CaptureFixture) -> None:
    for error in (StudyBrokenError("the cluster\nis gone"), OSError(errno.ENOSPC, "No space left on device")):

        @exit_codes
        def command(error: Exception = error) -> int:
            raise error

        assert command() == 75
    resume, room = capsys.readouterr().err.splitlines()
    assert resume.startswith("lethe: the cluster is gone: ")
    assert "--resume" in resume
    assert "No space left" in room


def test_guard_passes_success_interrupt_and_bugs() -> None:
    def command(outcome: int | type[BaseException]) -> int:
        if isinstance(outcome, int):
            return outcome
        raise outcome

    guarded = exit_codes(command)
    assert guarded(0) == 0
    assert guarded.__name__ == "command"
    assert guarded(KeyboardInterrupt) == 130
    with pytest.raises(ZeroDivisionError):
        guarded(ZeroDivisionError)


def test_main_refuses_an_unknown_command(capsys: pytest.CaptureFixture) -> None:
    assert main(["swep"]) == 2
    assert "'swep' (did you mean 'sweep'?)" in capsys.readouterr().err
