"""Which runs MLflow has registered: their models are safe there, in files of its own."""

from __future__ import annotations

from lethe.errors import BadInput
from lethe.tracking.address import check_uri, resolve_uri
from lethe.tracking.login import check_login
from lethe.tracking.quiet import quiet_mlflow


def registered_runs(uri: str | None) -> set[str]:
    """Hashes of runs that a model version names. BadInput where the store cannot be asked."""
    address = resolve_uri(uri)
    check_uri(address)
    check_login(address)
    quiet_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client, found, token = MlflowClient(tracking_uri=address), set(), None
    try:
        while token != "":
            page = client.search_model_versions(page_token=token)
            found |= {version.tags["lethe.run"] for version in page if "lethe.run" in version.tags}
            token = page.token or ""
    except MlflowException as error:
        raise BadInput(f"MLflow does not say what is registered: {str(error).splitlines()[0]}") from None
    return found
