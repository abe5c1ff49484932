"""All services together: each starts after those that it needs, and all are ended in the other order."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lethe.errors import UserError
from lethe.ops.dev_services.mlflow_and_objects import credentials, mlflow_server, object_store
from lethe.ops.dev_services.passwords import USER, exports, passwords, private_write
from lethe.ops.dev_services.postgres import postgres
from lethe.ops.dev_services.process import Child, check_port

EXTRA = ("boto3", "flask_wtf", "nanio", "psycopg")  # PostgreSQL may be the system's
WATCH_S = 0.5


@dataclass(frozen=True)
class Services:
    """The running services: addresses of MLflow and the S3 store, and files with the login to each, for a shell."""

    uri: str
    login: Path
    store_uri: str
    store: Path
    children: tuple[Child, ...]

    def wait(self) -> Child:
        """Wait until a service ends by itself, which none should; return it."""
        while True:
            for child in self.children:
                if child.ended:
                    return child
            time.sleep(WATCH_S)


def check_extra() -> None:
    """Raise UserError where the extra `services` is not installed."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise UserError(f"the services need {', '.join(missing)}: pip install 'lethe[services]'")


@contextmanager
def run_services(folder: Path, port: int, store_port: int) -> Iterator[Services]:
    """Run all services on these ports of loopback, with their data in `folder`, which stay there.

    Raises UserError for anything that keeps them from starting.
    """
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
        secrets = passwords(folder)
        store_variables = credentials(store_port, secrets)
        account = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": secrets.mlflow}
        private_write(login, exports({"MLFLOW_TRACKING_URI": uri, **account}))
        private_write(store, exports(store_variables))
        database, address = stack.enter_context(postgres(folder, secrets.database))
        files = stack.enter_context(object_store(folder, store_port, secrets))
        server = stack.enter_context(mlflow_server(folder, port, address, secrets, store_variables))
        yield Services(uri, login, f"http://127.0.0.1:{store_port}", store, (database, files, server))
