from __future__ import annotations

import pytest

from lethe.unlearning.requests import Assets
from tests.audits.small import memorised


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    return memorised(tmp_path_factory.mktemp("audited"))
