"""A desk of the page over flux-tiny, one for each file of tests."""

import pytest

from flux.util import TINY_WEIGHTS, configs

TRAINED = (TINY_WEIGHTS / configs["flux-tiny"].repo_flow).is_file()


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Models are loaded when it is given."""
    if not TRAINED:
        pytest.skip("flux-tiny has no weights here")
    from flux.app.desk import Desk
    from flux.app.options import JobCaps, PageOptions

    output = tmp_path_factory.mktemp("page") / "output"
    caps = JobCaps(pixels=256 * 256, steps=40, pictures=8)
    desk = Desk(PageOptions(model={"name": "flux-tiny", "device": "cpu"}, output=output, caps=caps))
    *_, loaded = desk.queue.loading.states()
    assert loaded.phase == "done", loaded.message
    yield desk
    desk.close()
