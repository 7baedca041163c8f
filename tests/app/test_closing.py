"""The page as a process: it opens, and whoever stops it finds nothing left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason='the page needs gradio: pip install "flux[app]"')

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to be caught")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_page_that_is_stopped_leaves_nothing(tmp_path, how):
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
    try:
        assert page.stdout.readline().startswith("open http://127.0.0.1:")
        assert [*(tmp_path / "tmp").glob("flux-page-*")]
        page.send_signal(how)
        _, said = page.communicate(timeout=300)
    finally:
        page.kill()
    assert "Traceback" not in said and page.returncode in (0, 130)
    assert not [*(tmp_path / "tmp").glob("flux-page-*")]
