"""All services, each after what it needs, and ended in the other order: whatever happens, and nothing else's."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lethe.errors import UserError
from lethe.ops.dev_services.mlflow_and_objects import credentials, mlflow_server, objects
from lethe.ops.dev_services.passwords import USER, exports, passwords, private_write
from lethe.ops.dev_services.postgres import postgres
from lethe.ops.dev_services.process import Child, check_port

EXTRA = ("boto3", "flask_wtf", "nanio", "psycopg")  # PostgreSQL may be the system's
WATCH_S = 0.5


@dataclass(frozen=True)
class Services:
    """What runs. `login` and `store` are files that a shell reads: how to come to MLflow, and to the S3 store."""

    uri: str
    login: Path
    store_uri: str
    store: Path
    children: tuple[Child, ...]

    def wait(self) -> Child:
        """Until one of them ends by itself, which none should."""
        while True:
            for child in self.children:
                if child.ended:
                    return child
            time.sleep(WATCH_S)


def check_extra() -> None:
    """Raise BadInput where the extra is not installed."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise UserError(f"the services need {', '.join(missing)}: pip install 'lethe[services]'")


@contextmanager
def run_services(folder: Path, port: int, store_port: int) -> Iterator[Services]:
    """Everything that runs, with its data in `folder`, which stay. BadInput for what keeps it from starting."""
    check_extra()
    check_port(port, "--port")
    check_port(store_port, "--store-port")
    if port == store_port:
        raise UserError(f"port {port} can only be one of both: change --port or --store-port")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)  # each file in it has its own owner; another user's PostgreSQL passes through
    uri, login, store = f"http://127.0.0.1:{port}", folder / "mlflow.env", folder / "store.env"
    with ExitStack() as stack:
        lock = stack.enter_context((folder / ".lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"the services of {folder} run already: end them first") from None
        words = passwords(folder)
        place = credentials(store_port, words)
        account = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": words.mlflow}
        private_write(login, exports({"MLFLOW_TRACKING_URI": uri, **account}))
        private_write(store, exports(place))
        database, address = stack.enter_context(postgres(folder, words.database))
        files = stack.enter_context(objects(folder, store_port, words))
        server = stack.enter_context(mlflow_server(folder, port, address, words, place))
        yield Services(uri, login, f"http://127.0.0.1:{store_port}", store, (database, files, server))
