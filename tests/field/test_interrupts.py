"""Ctrl-C and SIGTERM in a command's first seconds, while threads import side by side."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.faults.world import write_study

END_S = 10.0  # from the signal to the process's end


def interrupted(command: list[str], folder: Path, after: float | str, sent: signal.Signals) -> tuple[int, str, float]:
    """Exit code, output and seconds from the signal to the end. `after`: seconds, or the output that is waited for; a
    process that has ended before gets no signal."""
    environment = {**os.environ, "LETHE_HOME": str(folder / "home")}
    environment.pop("RAY_ADDRESS", None)
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        deadline = time.monotonic() + (60 if isinstance(after, str) else after)
        while time.monotonic() < deadline and process.poll() is None:
            if isinstance(after, str) and after in (folder / "log").read_text():
                break
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(sent)
        began = time.monotonic()
        try:
            code = process.wait(END_S)
        finally:
            process.kill()
        seconds = time.monotonic() - began
        log.seek(0)
        return code, log.read(), seconds


def command(folder: Path, main: str, **modules: str) -> list[str]:
    """A command whose `main` has this body; `modules` are others that it can import."""
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(source))
    (folder / "command.py").write_text("def main():\n" + textwrap.indent(textwrap.dedent(main), "    "))
    start = f"import platform, sys; sys.path.insert(0, {str(folder)!r}); from lethe.interrupts import run_command"
    return [sys.executable, "-c", f"{start}; run_command('command')"]


def test_a_signal_inside_an_import_waits_for_its_end(tmp_path: Path) -> None:
    slow = (
        "import time\nprint('begun', flush=True)\nfor _ in range(100): time.sleep(0.01)\nprint('imported', flush=True)"
    )
    body = """
        import threading
        threading.Thread(target=lambda: __import__("slow")).start()
        import slow
        import time
        time.sleep(60)
    """
    code, output, seconds = interrupted(command(tmp_path, body, slow=slow), tmp_path, "begun", signal.SIGTERM)
    assert (code, output) == (130, "begun\nimported\nlethe: interrupted\n")
    assert seconds < 2


def test_an_import_that_does_not_end_is_not_waited_for(tmp_path: Path) -> None:
    slow = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.01)"
    code, output, seconds = interrupted(command(tmp_path, "import slow", slow=slow), tmp_path, "begun", signal.SIGINT)
    assert (code, output) == (130, "begun\nlethe: interrupted\n")
    assert seconds < 5


def test_an_interrupt_in_a_destructor_ends_the_process_too(tmp_path: Path) -> None:
    body = """
        import time
        class Slow:
            def __del__(self):
                print("begun", flush=True)
                time.sleep(60)
        Slow()
        time.sleep(60)
    """
    code, output, seconds = interrupted(command(tmp_path, body), tmp_path, "begun", signal.SIGINT)
    assert (code, output) == (130, "begun\nlethe: interrupted\n")
    assert seconds < 2


@pytest.mark.parametrize("block", ["nullcontext()", "interrupts.may_take_long()"])
def test_a_process_that_does_not_end_is_ended_unless_it_may_take_long(tmp_path: Path, block: str) -> None:
    body = f"""
        import time
        from contextlib import nullcontext
        from lethe import interrupts
        interrupts.LIMIT_S = 0.3
        with {block}:
            try:
                print("begun", flush=True)
                time.sleep(60)
            except KeyboardInterrupt:
                time.sleep(1)
        print("kept")
        return 130
    """
    code, output, _ = interrupted(command(tmp_path, body), tmp_path, "begun", signal.SIGINT)
    assert code == 130
    assert output == "begun\n" + ("lethe: interrupted\n" if "null" in block else "kept\n")


def tries(count: int, folder: Path) -> None:
    """Signals at random moments of a study's first ten seconds: each ends it in time and leaves nothing running."""
    study, draw = write_study(folder, 2), random.Random(0)
    sweep = [sys.executable, "-m", "platform.sweep", str(study), "--reports", str(folder / "reports")]
    for index in range(count):
        moment = (index + draw.random()) * 10 / count
        code, output, seconds = interrupted(sweep, folder, moment, draw.choice((signal.SIGINT, signal.SIGTERM)))
        # Before the first line of ours a signal is the interpreter's own.
        assert code in (0, 130) or (moment < 1 and code in (-2, -15)), (moment, code, output)
        assert seconds < END_S
        assert "Traceback" not in output or moment < 1, output
    ours = [p for p in psutil.process_iter(["environ"]) if f"LETHE_HOME={folder}" in str(p.info["environ"])]
    assert ours == []
    code, output, _ = interrupted([*sweep], folder, 240, signal.SIGINT)
    assert code == 0, output


@pytest.mark.slow
def test_a_signal_in_the_first_seconds_ends_a_study_in_time(tmp_path: Path) -> None:
    tries(2, tmp_path)


@pytest.mark.long
def test_a_hundred_signals_in_the_first_seconds(tmp_path: Path) -> None:
    tries(100, tmp_path)
