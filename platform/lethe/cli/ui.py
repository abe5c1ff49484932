"""`ui`: MLflow's page on a study's trials."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from lethe.cli.app import command
from lethe.cli.completion import study_ids
from lethe.interrupts import may_take_long

EXAMPLES = """
lethe ui
lethe ui tofu-1a2b3c4d --port 5001
"""


@command("ui", EXAMPLES)
def main(
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="STUDY", help="An id, or its beginning.", autocompletion=study_ids, show_default="latest"
        ),
    ] = None,
    port: Annotated[int, typer.Option(metavar="N", help="On loopback.")] = 5000,
    browser: Annotated[bool, typer.Option(help="Open the page where there is a browser.")] = True,
) -> int:
    """Open MLflow on a study's trials.

    Until Ctrl-C where the runs are in a file or a database; where MLFLOW_TRACKING_URI names a server, that one is
    opened. Exit codes: 0 done, 2 bad input, 75 MLflow ended by itself.
    """
    from lethe.config.addresses import without_password
    from lethe.errors import StudyBrokenError, UserError
    from lethe.ops.mlflow_page import HOST, mlflow_server, trials_page
    from lethe.tracking.connection import check_login, check_uri, resolve_uri

    if not 0 < port < 2**16:
        raise UserError(f"--port {port}: must lie between 1 and {2**16 - 1}")
    store = resolve_uri()
    check_uri(store)
    if store.startswith("http"):
        check_login(store)
        _show(without_password(trials_page(store.rstrip("/"), study)), browser)
        return 0
    try:
        with may_take_long(), mlflow_server(store, port) as server:
            _show(trials_page(f"http://{HOST}:{port}", study), browser)
            print("Ctrl-C ends the page; the runs stay", flush=True)
            code = server.wait()
    except KeyboardInterrupt:
        print("ended", flush=True)
        return 0
    raise StudyBrokenError(f"MLflow's server ended by itself with exit code {code}")


def _show(page: str, browser: bool) -> None:
    print(f"trials: {page}", flush=True)
    if browser:
        webbrowser.open(page)  # False, and nothing else, where there is no browser
