"""The page: its tabs over one desk, its looks, and the command that opens it."""

import atexit
import errno
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any

from flux.app.options import PageOptions, read_options
from flux.entry import show
from flux.extras import need
from flux.flags import HELP
from flux.outcome import mistake, outcome, say

TITLE = "flux"


def open_page(doc: str, argv: Sequence[str] = ()) -> int:
    """Open the page that was asked for on the command line, until Ctrl-C; returns the exit code.

    doc: the demo's own text, for `--help`.
    """
    if any(word in HELP for word in argv):
        show(doc.strip())
        return 0
    try:
        options, notes = read_options(argv)
        if not options.dry_run:
            require_free(options.host, options.port)
        prepare()
    except (ValueError, ImportError) as error:
        return mistake(error)
    for line in notes:
        say(f"note: {line}")
    if options.dry_run:
        show(options.in_words())
        return 0
    return outcome(lambda: _serve(options), stopped="closed")


def prepare() -> None:
    """Import Gradio with its own reports turned off. Raises ImportError, one line, where it is missing.

    What it keeps of uploads and pictures goes when the process ends.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    need("gradio", "app", "the page")
    if "GRADIO_TEMP_DIR" not in os.environ:
        folder = os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="flux-page-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _serve(options: PageOptions) -> int:
    from flux.app.desk import Desk

    with suppress(ValueError):  # in a thread; elsewhere a service that is stopped closes as by Ctrl-C
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    desk = Desk(options)
    blocks = build(desk)
    try:
        _, here, there = launch(blocks, desk)
        show(f"open {there or here}  (Ctrl-C closes it)")
        loaded = _load(desk)
        if loaded:
            return loaded
        blocks.block_thread()
    finally:
        blocks.close(verbose=False)
        desk.close()
    return 0


def require_free(host: str, port: int | None) -> None:
    """Raise ValueError, one line, for an address on which no page can be opened; before a model is loaded."""
    try:
        found = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"--host {host}: {error.strerror}: name this machine, or 0.0.0.0 for all") from None
    family, kind, _, _, address = found[0]
    try:
        with socket.socket(family, kind) as place:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            place.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise ValueError(
                f"--host {host}: is no address of this machine: 0.0.0.0 is all of them"
            ) from None
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
        raise ValueError(f"--port {port}: {reason}: choose another, or leave it out") from None


def _load(desk: Any) -> int:
    """Wait until the models are there; says what was said, and 2 where they cannot be had."""
    *_, state = desk.queue.loading.states()
    for line in state.lines:
        show(line)
    return 0 if state.phase == "done" else mistake(state.message)


def build(desk: Any) -> Any:
    """The page over a desk, as Gradio's blocks."""
    import gradio as gr

    from flux.app.loading import connect_loading
    from flux.app.panel import JobPanel
    from flux.app.tab_edit import EditTab
    from flux.app.tab_generate import GenerateTab
    from flux.app.tab_layers import LayersTab
    from flux.app.tab_runs import RunsTab

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400)) as blocks:
        gr.HTML(f"<header class='top'><h1>flux</h1><span>{desk.model.name}</span></header>", padding=False)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Generate", id="test"):
                generate = GenerateTab(desk)
            with gr.Tab("Edit", id="edit"):
                edit = EditTab(desk)
            with gr.Tab("Layers", id="skip"):
                layers = LayersTab(desk)
            with gr.Tab("Runs", id="runs") as runs_tab:
                runs = RunsTab(desk)
        makers = [generate, edit, layers]
        for tab in makers:
            tab.connect()
        layers.connect_strip(edit.strip)
        outputs, fill = connect_loading(desk, tabs, makers)
        runs.connect(runs_tab, fill, outputs)
        blocks.unload(JobPanel.leave)
    return blocks


def launch(blocks: Any, desk: Any) -> tuple[Any, str, str | None]:
    """Start the server; returns Gradio's app, the page's address, and the one that `--share` has made."""
    from flux.app.looks import theme
    from flux.app.serving import app_kwargs

    options = desk.options
    style = files("flux.app").joinpath("page.css").read_text(encoding="utf-8")
    launched = blocks.queue(max_size=64, default_concurrency_limit=8).launch(
        share=options.share,
        server_name=f"[{options.host}]" if ":" in options.host else options.host,
        server_port=options.port,
        auth=options.user,
        prevent_thread_lock=True,
        quiet=True,
        inbrowser=False,
        show_error=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        max_file_size=f"{options.upload}mb",
        app_kwargs=app_kwargs(desk.root, options.host, is_local=options.is_local),
        theme=theme(),
        css=style,
    )
    _shorten(blocks.config)
    return launched


def _shorten(config: dict[str, Any]) -> None:
    """Leave out what only other programs would ask for: half of what each load of the page sends."""
    for component in config.get("components", ()):
        for key in ("api_info", "api_info_as_input", "api_info_as_output", "example_inputs"):
            if key in component:
                component[key] = {}
