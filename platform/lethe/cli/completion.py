"""Words that a shell completes: names of studies in `search_spaces/`, and ids of studies in the storage root."""

from __future__ import annotations


def study_names(incomplete: str) -> list[str]:
    """Return the names of search spaces that begin so."""
    from lethe.config.loading import spaces

    return sorted(name for name in spaces() if name.startswith(incomplete))


def studies_to_run(incomplete: str) -> list[str]:
    """Return what `sweep` takes that begins so: names of search spaces, then ids of stored studies."""
    return study_names(incomplete) + study_ids(incomplete)


def scaling_names(incomplete: str) -> list[str]:
    """Return the names of scaling studies that begin so, and `plan`."""
    names = [name.removeprefix("scaling-") for name in study_names("scaling-")]
    return [name for name in ["plan", *names] if name.startswith(incomplete)]


def study_ids(incomplete: str) -> list[str]:
    """Return the ids of stored studies that begin so, the newest first; none from an object store, which may take its
    time to answer."""
    from lethe.storage.paths import home, store

    if store():
        return []
    folders = [path for path in (home() / "studies").glob(f"{incomplete}*") if path.is_dir() and path.name[0] != "."]
    return [path.name for path in sorted(folders, key=lambda path: -path.stat().st_mtime)]
