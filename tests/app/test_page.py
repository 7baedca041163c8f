"""The page as a process: where it can open, and that whoever stops it finds nothing left behind."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flux.app.page import require_free

ROOT = Path(__file__).parents[2]


@pytest.fixture
def heeded():
    """Ctrl-C is not ignored by what is started, as it is where tests run in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to be caught")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_page_that_is_stopped_leaves_nothing(tmp_path, how):
    pytest.importorskip("gradio", reason='the page needs gradio: pip install "flux[app]"')
    (tmp_path / "tmp").mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "GRADIO_TEMP_DIR"}
    environment |= {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(ROOT / "demos" / "demo_gr.py"), "--device", "cpu"]
    page = subprocess.Popen(
        [*command, "--output", str(tmp_path / "output")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    limit = threading.Timer(300, page.kill)  # reading a line has none of its own
    limit.start()
    try:
        assert page.stdout.readline().startswith("open http://127.0.0.1:")
        limit.cancel()
        assert [*(tmp_path / "tmp").glob("flux-page-*")]
        page.send_signal(how)
        _, said = page.communicate(timeout=300)
    finally:
        limit.cancel()
        page.kill()
    assert "Traceback" not in said and page.returncode in (0, 130)
    assert not [*(tmp_path / "tmp").glob("flux-page-*")]


def test_where_no_page_can_be_opened_is_said_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"^--port {port}: is taken: choose another, or leave it out$"):
            require_free("127.0.0.1", port)
    require_free("127.0.0.1", None)
    with pytest.raises(
        ValueError, match="^--host nobody.invalid: .*: name this machine, or 0.0.0.0 for all$"
    ):
        require_free("nobody.invalid", None)
    with pytest.raises(ValueError, match="^--host 192.0.2.1: is no address of this machine"):
        require_free("192.0.2.1", None)
