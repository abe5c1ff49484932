"""Rows of a data set on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lethe.errors import UserError, unknown_name

HUB_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True)
class HubDataset:
    """A data set `owner/name` and the names of its `configurations`."""

    name: str
    configurations: frozenset[str]

    def splits(self, configuration: str) -> list[str]:
        """Return the names of a configuration's splits."""
        from datasets import get_dataset_split_names

        return [*map(str, get_dataset_split_names(self.name, configuration))]

    def rows(self, configuration: str, split: str = "train") -> list[dict[str, Any]]:
        """Return the rows of a split."""
        from datasets import load_dataset

        return [dict(row) for row in load_dataset(self.name, configuration, split=split)]


def is_hub_id(name: str) -> bool:
    """Return whether `name` is written as owner/name."""
    return name.count("/") == 1 and not name.startswith(("/", ".", "~")) and not name.endswith("/")


def open_dataset(name: str, called: str) -> HubDataset:
    """Find the data set `name` on the hub or, with HF_HUB_OFFLINE, where it was downloaded to. Raises UserError for one
    that cannot be had; `called` is what the message calls it."""
    from datasets import get_dataset_config_names
    from huggingface_hub import HfApi, constants

    try:
        if not constants.HF_HUB_OFFLINE:
            HfApi().dataset_info(name, timeout=HUB_TIMEOUT)  # datasets itself retries for half a minute
        return HubDataset(name, frozenset(get_dataset_config_names(name)))
    except Exception as error:  # noqa: BLE001  # both raise many kinds (offline, unknown, gated), some not exported
        raise UserError(
            f"{called} {name!r}: neither a folder nor reachable on the hub ({type(error).__name__}); "
            "where it was downloaded before, HF_HUB_OFFLINE=1 uses that"
        ) from None


def hub_rows(source: str) -> list[dict[str, Any]]:
    """Return the rows of `owner/name/configuration/split`; the last two may be left out where there is only one. Raises
    UserError that lists the choices."""
    owner, name, *rest = source.split("/")
    dataset = open_dataset(f"{owner}/{name}", "the source")
    known = dataset.configurations
    # Of a data set with one configuration the third part may be the split.
    configuration = rest.pop(0) if rest and (rest[0] in known or len(known) > 1) else None
    if configuration is None and len(known) == 1:
        (configuration,) = known
    if configuration not in known:
        raise unknown_name(f"configuration of {dataset.name} (give {dataset.name}/NAME)", configuration or "", known)
    splits = dataset.splits(configuration)
    split = rest[0] if rest else splits[0] if len(splits) == 1 else ""
    if split not in splits:
        where = f"{dataset.name}/{configuration}"
        raise unknown_name(f"split of {where} (give {where}/NAME)", split, splits)
    return dataset.rows(configuration, split)
