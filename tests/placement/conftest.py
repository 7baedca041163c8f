"""A device that is none, for every test of this room."""

import pytest
from helpers_placement import FakeLane

from flux.placement import work


@pytest.fixture
def lane(monkeypatch):
    """The way to a device that is none; parts of models are carried there as they would be to a GPU."""
    fake = FakeLane()
    monkeypatch.setattr(work, "lane_to", lambda device: fake)
    return fake
