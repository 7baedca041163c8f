"""What the tests of studies share."""

from pathlib import Path

import pytest
from helpers_demos import save_clone


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model's files, as flux-tiny's; nothing may be written there."""
    return save_clone(tmp_path_factory.mktemp("clone"))
