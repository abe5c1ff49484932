"""The version of the tables in a SQLite file of MLflow's or Optuna's, compared with the installed package's.

Both make their tables by Alembic, MLflow in some seventy steps: killed between two of them it leaves a file that it
refuses ever after. The packages, which take seconds to import, are not imported here.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from lethe.errors import UserError

REVISION = re.compile(r"""^(down_)?revision\b[^=\n]*=\s*["']([\w.]+)["']""", re.MULTILINE)
WAIT_S = 2.0


@dataclass(frozen=True)
class Schema:
    """The tables of a package: `steps` is the folder in it with a file per step, `rows` the table that is empty while
    nothing is lost with the file, `upgrade` the command that mends old tables, with `{}` for the address."""

    package: str
    steps: str
    rows: str
    upgrade: str

    def check(self, path: Path, address: str) -> None:
        """Raise UserError, with the cure, where the package would refuse the tables of the file `path`, whose address
        is `address`. A file without tables and one that is locked pass: the package makes the tables, or waits."""
        try:
            with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=WAIT_S)) as database:
                tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                has_version = "alembic_version" in tables
                found = _first(database, "SELECT version_num FROM alembic_version") if has_version else None
                is_empty = self.rows not in tables or _first(database, f"SELECT 1 FROM {self.rows}") is None  # noqa: S608  # ours
        except sqlite3.OperationalError:
            return
        except sqlite3.DatabaseError as error:
            raise UserError(f"{address}: {error}: move the file away, or name another one") from None
        newest, known = self.revisions()
        if not tables or newest is None or found == newest:
            return
        what = f"{address}: its tables have the version {found}, the installed {self.package} wants {newest}"
        if found is not None and found not in known:
            raise UserError(f"{what}: a newer {self.package} or another program made them: name another file")
        if is_empty:
            raise UserError(f"{what}, and it holds no {self.rows}: move the file away, the next study makes a new one")
        raise UserError(f"{what}: copy the file, then run `{self.upgrade.format(address)}`")

    def revisions(self) -> tuple[str | None, set[str]]:
        """Return the newest revision of the installed package's tables and all that it knows, read from its files; None
        where they do not say."""
        spec = find_spec(self.package)
        places = spec.submodule_search_locations if spec else None
        texts = [file.read_text() for place in places or () for file in Path(place, self.steps).glob("*.py")]
        found = [match for text in texts for match in REVISION.findall(text)]
        known, earlier = ({name for is_down, name in found if bool(is_down) == down} for down in (False, True))
        newest = known - earlier
        return (newest.pop() if len(newest) == 1 else None), known


MLFLOW = Schema("mlflow", "store/db_migrations/versions", "runs", "mlflow db upgrade {}")
OPTUNA = Schema("optuna", "storages/_rdb/alembic/versions", "trials", "optuna storage upgrade --storage {}")


def _first(database: sqlite3.Connection, query: str) -> str | None:
    row = database.execute(query).fetchone()
    return None if row is None else str(row[0])
