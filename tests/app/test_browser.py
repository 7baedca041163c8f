"""The page in a real browser: what a user does with mouse and keys, and what stays at home.

Needs Playwright and a Chromium that is installed already. Where there is none these tests are skipped,
unless REQUIRE_BROWSER is set, as in CI.
"""

import json
import os
import runpy
import shutil
import socket
import threading
from pathlib import Path

import pytest
from PIL import Image

from flux.app.jobs import PageJob
from flux.files import read_json_object

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SLOW = 120_000
"""Milliseconds after which nothing comes any more, on a machine that does much else."""


def lacking(what: str) -> None:
    if os.environ.get("REQUIRE_BROWSER"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking("the page is tested with Playwright: pip install playwright")
    if CHROMIUM is None:
        lacking("the page is tested in Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        # As root, as in many containers, Chromium starts without its sandbox alone.
        arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(desk):
    from dataclasses import replace

    from flux.app.page import build, launch, prepare

    prepare()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    desk.options = replace(desk.options, port=port)
    blocks = build(desk)
    _, here, _ = launch(blocks, desk)
    yield here
    blocks.close(verbose=False)


@pytest.fixture
def elsewhere():
    """The addresses of other hosts that a browser asked for."""
    return []


@pytest.fixture
def opened(browser, address, elsewhere):
    """A function that opens the page as a new user; other hosts cannot be reached."""
    contexts = []

    def open_page():
        context = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
        contexts.append(context)

        def at_home(route):
            url = route.request.url
            if url.startswith((address, "data:", "blob:")):
                route.continue_()
            else:
                elsewhere.append(url)
                route.abort()

        context.route("**/*", at_home)
        page = context.new_page()
        page.set_default_timeout(SLOW)
        page.goto(address)
        page.wait_for_selector("#test-go")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(opened):
    return opened()


def tab(page, name):
    page.click(f"button[role=tab]:has-text('{name}')")


def idle(page):
    """Wait until the page has done what it was about to do."""
    page.wait_for_timeout(100)
    page.evaluate("new Promise(done => requestIdleCallback(done, {timeout: 5000}))")


def keeps(page, holds) -> bool:
    """Whether a field still has its value when the page has come to rest, twice."""
    for _ in range(2):
        idle(page)
        if not holds():
            return False
    return True


def write(page, where, text):
    """Fill a field. One that came into view milliseconds ago, too few for a hand, may empty itself once."""
    field = page.locator(where)
    for _ in range(5):
        field.fill(text)
        if keeps(page, lambda: field.input_value() == text):
            return
    raise AssertionError(f"{where} does not keep {text!r}")


def pick(page, where):
    """Choose one of several; as with `write`, what came into view milliseconds ago may forget it once."""
    field = page.locator(where)
    for _ in range(5):
        field.check()
        if keeps(page, field.is_checked):
            return
    raise AssertionError(f"{where} does not stay chosen")


def steps(page, kind, count):
    write(page, f"#{kind}-steps input[type=number]", str(count))
    page.press(f"#{kind}-steps input[type=number]", "Tab")


def counts(found, many):
    """So many of them come onto the page, or are on it."""
    from playwright.sync_api import expect

    expect(found).to_have_count(many, timeout=SLOW)


def shows(place, text):
    """A text comes onto the page, or is on it."""
    from playwright.sync_api import expect

    expect(place).to_contain_text(text, timeout=SLOW)


def has_value(field, text):
    """A field is filled, or comes to be, with a text."""
    from playwright.sync_api import expect

    expect(field).to_have_value(text, timeout=SLOW)


def ended(page, kind, how="done"):
    """Wait for the end of a job; what is said of it."""
    page.wait_for_selector(f"#{kind}-status :is(.done, .failed, .stopped)")
    said = page.inner_text(f"#{kind}-status")
    assert page.query_selector(f"#{kind}-status .{how}"), said
    return said


def saved(page, kind, folder) -> Path:
    """The spec that `Save as JSON` gives the browser."""
    with page.expect_download() as download:
        page.click(f"#{kind}-save")
    file = folder / download.value.suggested_filename
    download.value.save_as(file)
    return file


DONE_ON = """name => {
  const canvas = document.querySelector(`#${name} canvas`), editor = window.editor;
  if (!canvas?.clientWidth || editor?.app?.canvas !== canvas) return null;
  const done = [];
  for (let each = editor.command_manager.history; each; each = each.previous)
    if (each.command) done.push(each.command.name);
  return done.includes("AddImage") && editor.current_tool === "draw" ? done.length : null;
}"""
"""How much was done on a canvas; null until it has its picture, whose arrival clears it, and its brush."""


def paint(page, name):
    """Draw over the middle of a picture with the mouse."""
    canvas = page.locator(f"#{name} canvas").first
    before = page.wait_for_function(DONE_ON, arg=name).json_value()
    canvas.scroll_into_view_if_needed()
    box = None
    while box != (box := canvas.bounding_box()):
        page.wait_for_timeout(500)
        idle(page)
    across, down = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(across - 30, down - 20)
    page.mouse.down()
    page.mouse.move(across + 30, down - 20, steps=6)
    page.mouse.move(across, down + 20, steps=6)
    page.mouse.up()
    page.wait_for_function(f"([name, before]) => ({DONE_ON})(name) > before", arg=[name, before])


def require_in_the_middle(mask):
    """What is white lies where `paint` draws, around the middle, and leaves a border."""
    inside = mask.convert("L").point(lambda value: 255 * (value >= 128)).getbbox()
    assert inside is not None
    left, top, right, bottom = inside
    assert 0 < left < mask.width / 2 < right < mask.width, inside
    assert 0 < top < mask.height / 2 < bottom < mask.height, inside
    assert abs((left + right) / 2 - mask.width / 2) <= mask.width / 10, inside
    assert abs((top + bottom) / 2 - mask.height / 2) <= mask.height / 10, inside


def drop(page, kind, file):
    """Give the page a spec."""
    with page.expect_file_chooser() as chooser:
        page.click(f"#{kind}-drop")
    chooser.value.set_files(str(file))


def test_a_picture_is_made_and_its_spec_makes_the_same_by_the_demo(page, desk, tmp_path, elsewhere):
    write(page, "#test-prompt textarea", "a small blue house on the grass")
    write(page, "#test-seed input, #test-seed textarea", "5")
    steps(page, "test", 2)
    page.click("#test-go")
    ended(page, "test")
    shows(page.locator("#test-facts"), "5")
    counts(page.locator("#test-pictures img"), 1)
    counts(page.locator("#test-film img"), 2)
    file = saved(page, "test", tmp_path)
    assert json.loads(file.read_text())["prompts"] == ["a small blue house on the grass"]
    demo = runpy.run_path(str(ROOT / "demos" / "demo_0_test.py"))["main"]
    assert not demo([str(file), "--output", str(tmp_path / "run")])
    link = page.get_attribute("#test-facts a[download]", "href")
    here = desk.root / link.removeprefix("runs/")
    assert here.read_bytes() == (tmp_path / "run" / "picture-01-seed-5.png").read_bytes()
    assert page.request.get(f"{page.url.rstrip('/')}/{link}").body() == here.read_bytes()
    assert elsewhere == []


def test_layers_are_picked_and_a_mask_is_drawn_by_mouse(page, desk, tmp_path):
    photo = tmp_path / "photo.png"
    shutil.copy(ROOT / "json" / "photos" / "scene.png", photo)
    tab(page, "Edit")
    write(page, "#edit-prompt textarea", "a big yellow figure with arms down on the grass")
    write(page, "#edit-edits textarea", "a big yellow figure with arms up on the grass")
    page.set_input_files("#edit-photo input[type=file]", str(photo))
    page.wait_for_function("document.querySelector('#edit-method input').value === 'gentle'")
    strip = page.locator("#edit-strip")
    strip.locator("button:has-text('none')").click()
    counts(strip.locator("[aria-pressed=true]"), 0)
    focused = """([layer, pressed]) => document.activeElement?.dataset.layer === layer
        && document.activeElement.getAttribute("aria-pressed") === pressed"""
    for layer in ("3", "7"):
        strip.locator(f"button[data-layer='{layer}']").click()
        page.wait_for_function(focused, arg=[layer, "true"])
    page.keyboard.press("ArrowRight")
    page.wait_for_function(focused, arg=["8", "false"])
    page.keyboard.press("Space")
    page.wait_for_function(focused, arg=["8", "true"])
    pressed = strip.locator("[aria-pressed=true]").evaluate_all("all => all.map(each => each.dataset.layer)")
    assert pressed == ["3", "7", "8"]
    page.click("button:has-text('Mask: where it may change')")
    pick(page, "#edit-mask-kind input[value=painted]")
    paint(page, "edit-mask")
    page.click("button:has-text('More'):visible")
    steps(page, "edit", 2)
    page.click("#edit-go")
    ended(page, "edit")
    spec = json.loads(saved(page, "edit", tmp_path).read_text())
    assert (spec["layers"], spec["method"]["name"], spec["steps"]) == ([3, 7, 8], "gentle", 2)
    mask = Image.open(spec["mask"]["where"])
    assert mask.size == Image.open(photo).size
    assert 0 < sum(mask.convert("L").histogram()[128:]) < mask.width * mask.height
    require_in_the_middle(mask)
    page.locator("#edit-slider img").nth(1).wait_for(state="attached")
    shows(page.locator("#edit-facts"), "PSNR")


def test_a_canvas_that_was_opened_while_it_started_gets_its_size(page):
    """Gradio's editor reads its room as it starts; where that part of the page is closed then, it is 0."""
    photo = ROOT / "json" / "photos" / "scene.png"
    page.click("button:has-text('Start from a photo')")
    page.set_input_files("#test-photo input[type=file]", str(photo))
    page.wait_for_function("document.querySelector('#test-mask canvas')?.clientWidth > 0")
    page.evaluate("document.querySelector('#test-mask canvas').style.width = '0px'")
    page.wait_for_function("document.querySelector('#test-mask canvas').clientWidth > 0")
    room = "document.querySelector('#test-mask canvas').parentElement.style.width"
    page.wait_for_function(f"{room} === ''")


def test_a_part_of_a_photo_is_painted_and_drawn_anew(page, desk, tmp_path):
    photo = ROOT / "json" / "photos" / "scene.png"
    assert page.locator("#test-mask").count() == 0  # nothing to paint on yet
    page.click("button:has-text('Start from a photo')")
    page.set_input_files("#test-photo input[type=file]", str(photo))
    page.wait_for_selector("#test-mask canvas")
    paint(page, "test-mask")
    steps(page, "test", 2)
    page.click("#test-go")
    ended(page, "test")
    start = json.loads(saved(page, "test", tmp_path).read_text())["start"]
    mask = Image.open(start["mask"]["where"]).convert("L")
    assert mask.size == Image.open(photo).size
    assert 0 < sum(mask.histogram()[128:]) < mask.width * mask.height
    require_in_the_middle(mask)


def test_a_click_on_an_edit_says_what_that_point_looks_at(page, desk):
    tab(page, "Edit")
    page.click("button:has-text('More'):visible")
    steps(page, "edit", 1)
    page.click("#edit-go")
    ended(page, "edit")
    page.click("button:has-text('What does a point look at?')")
    picture = page.locator("#edit-point img")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#edit-point img')?.naturalWidth === 384")
    box = picture.bounding_box()
    assert box["width"] > 300  # large enough to hit something on it
    picture.click(position={"x": box["width"] * 0.75, "y": box["height"] * 0.25})
    page.locator("#edit-looks img").nth(2).wait_for(state="attached")
    watched = [
        read_json_object(file)["spec"]["watch"]
        for file in desk.runs.glob("edit-*/run.json")
        if (file.parent / "watch").is_dir()
    ]
    (x, y), *more = watched[-1]["points"]
    assert abs(x - 96) <= 2 and abs(y - 32) <= 2 and not more


def test_what_has_no_field_is_written_as_json_and_wins(page, tmp_path):
    tab(page, "Edit")
    page.click("button:has-text('More'):visible")
    write(page, "#edit-more textarea", '{"edits": [}')
    page.click("#edit-go")
    page.wait_for_selector("#edit-status .failed")
    assert page.inner_text("#edit-status").startswith("More keys: not valid JSON at line 1, column 12")
    write(page, "#edit-more textarea", '{"edits": [{"prompt": "a house", "strengthh": 1}]}')
    page.click("#edit-go")
    page.wait_for_selector("#edit-status .failed:has-text('strengthh')")
    write(page, "#edit-more textarea", '{"edits": [{"prompt": "a house", "strength": 0.5}], "batch": 2}')
    spec = json.loads(saved(page, "edit", tmp_path).read_text())
    assert (spec["edits"][0]["prompt"], spec["edits"][0]["strength"], spec["batch"]) == ("a house", 0.5, 2)


def test_a_picture_is_made_by_keys_alone(page):
    def tab_to(what, most=60):
        for _ in range(most):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches({what!r})"):
                return
        raise AssertionError(f"no way to {what} by the key Tab")

    tab_to("button[role=tab]")
    tab_to("#test-prompt textarea")
    page.keyboard.press("Control+a")
    page.keyboard.type("a small blue house")
    tab_to("#test-seed input, #test-seed textarea")
    page.keyboard.press("Control+a")
    page.keyboard.type("6")
    tab_to("#test-steps input[type=number]")
    page.keyboard.press("Control+a")
    page.keyboard.type("2")
    tab_to("#test-go")
    page.keyboard.press("Enter")
    ended(page, "test")
    counts(page.locator("#test-pictures img"), 1)
    tab_to("#test-save")


def test_who_is_to_log_in_does(browser, desk, tmp_path):
    from dataclasses import replace

    from flux.app.page import build, launch, prepare

    prepare()
    before = desk.options
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    desk.options = replace(before, port=port, user=("anna", "secret"))
    blocks = build(desk)
    _, here, _ = launch(blocks, desk)
    desk.options = before
    context = browser.new_context()
    try:
        page = context.new_page()
        page.set_default_timeout(SLOW)
        page.goto(here)
        page.wait_for_selector("input[type=password]")
        assert page.locator("#test-go").count() == 0
        assert page.request.get(f"{here}runs/anything/run.json").status == 401
        for password in ("wrong", "secret"):
            page.locator("input:not([type=password])").first.fill("anna")
            page.fill("input[type=password]", password)
            with page.expect_response(lambda each: each.url.endswith("/login")) as answer:
                page.click("button:has-text('Log')")
            assert answer.value.ok == (password == "secret")
            if password == "wrong":
                has_value(page.locator("input[type=password]"), "")
                assert page.locator("#test-go").count() == 0
        page.wait_for_selector("#test-go")
        assert page.request.get(f"{here}runs/anything/run.json").status == 404
    finally:
        context.close()
        blocks.close(verbose=False)


@pytest.fixture
def going(monkeypatch):
    """Until this event is set, a job that has begun to draw gets no further, unless it is stopped."""
    going, watch = threading.Event(), PageJob.watch

    def held(job, progress):
        watch(job, progress)
        while progress.step is not None and not job.cancelled and not going.wait(0.02):
            pass

    monkeypatch.setattr(PageJob, "watch", held)
    yield going
    going.set()


def test_a_run_is_stopped_in_its_middle_and_the_page_goes_on(page, going):
    write(page, "#test-seed input, #test-seed textarea", "77")
    steps(page, "test", 40)
    page.click("#test-go")
    page.wait_for_selector("#test-status .working:has-text('Step')")
    page.click("#test-stop")
    assert "stopped" in ended(page, "test", "stopped")
    going.set()
    steps(page, "test", 2)
    page.click("#test-go")
    page.wait_for_selector("#test-status .done")


def test_a_bad_upload_is_said_in_one_line(page, tmp_path):
    bad = tmp_path / "photo.png"
    bad.write_text("<html>not a picture")
    tab(page, "Edit")
    page.set_input_files("#edit-photo input[type=file]", str(bad))
    page.wait_for_selector("#edit-status .failed")
    assert page.inner_text("#edit-status") == (
        "photo.png: it is a web page (HTML): download the picture itself"
    )


def test_a_broken_spec_is_said_in_one_line_and_a_whole_one_fills_the_fields(page, tmp_path):
    (tmp_path / "broken.json").write_text('{"prompts": ["a"], "stepz": 3}')
    drop(page, "test", tmp_path / "broken.json")
    page.wait_for_selector("#test-status .failed")
    assert "stepz" in page.inner_text("#test-status")
    (tmp_path / "whole.json").write_text(
        '{"source": "a red house", "edits": ["a blue house"], "layers": [2]}'
    )
    drop(page, "test", tmp_path / "whole.json")
    page.wait_for_selector("#edit-status .loaded")
    has_value(page.locator("#edit-prompt textarea"), "a red house")
    has_value(page.locator("#edit-edits textarea"), "a blue house")
    counts(page.locator("#edit-strip [aria-pressed=true]"), 1)


def test_two_users_wait_for_each_other(opened, going):
    first, second = opened(), opened()
    for page, seed in ((first, "81"), (second, "82")):
        write(page, "#test-seed input, #test-seed textarea", seed)
    steps(first, "test", 40)
    steps(second, "test", 2)
    first.click("#test-go")
    first.wait_for_selector("#test-status .working:has-text('Step')")
    second.click("#test-go")
    second.wait_for_selector("#test-status .waiting:has-text('1 job before yours')")
    first.click("#test-stop")
    ended(first, "test", "stopped")
    going.set()
    ended(second, "test")
    shows(second.locator("#test-facts"), "82")
    assert not first.inner_text("#test-facts").strip()


def test_layers_are_probed_and_the_run_is_opened_and_loaded(page, elsewhere):
    tab(page, "Layers")
    write(page, "#skip-layers input, #skip-layers textarea", "0, 5")
    steps(page, "skip", 1)
    page.click("#skip-go")
    ended(page, "skip")
    counts(page.locator("#skip-bars .row"), 2)
    page.click("#skip-use")
    tab(page, "Edit")
    page.wait_for_selector("#edit-strip button[data-layer='0'][title*='importance']")
    tab(page, "Runs")
    page.wait_for_selector("#runs-wall img")
    page.locator("#runs-wall button").first.click()
    page.wait_for_selector("#runs-report iframe")
    frame = page.frame_locator("#runs-report iframe")
    frame.locator("body").wait_for()
    page.click("#runs-load")
    page.wait_for_selector("#skip-status .loaded, #test-status .loaded, #edit-status .loaded")
    assert elsewhere == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(browser, address, width, scheme):
    come = {
        "Generate": "#test-go",
        "Edit": "#edit-go",
        "Layers": "#skip-go",
        "Runs": "#runs-status .idle, #runs-wall img",
    }
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    try:
        page = context.new_page()
        page.set_default_timeout(SLOW)
        page.goto(address)
        page.wait_for_selector("#test-go")
        for name, what in come.items():
            tab(page, name)
            page.wait_for_selector(what)
            idle(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    finally:
        context.close()


def test_what_is_drawn_to_paint_on_is_stopped_too_and_its_fields_are_checked(page, desk):
    at, go = threading.Event(), threading.Event()
    before = desk.queue.put(lambda job: (at.set(), go.wait(SLOW / 1000), desk.root)[-1])
    assert at.wait(60)
    tab(page, "Edit")
    page.click("button:has-text('Mask: where it may change')")
    page.click("#edit-draw")
    page.wait_for_selector("#edit-status .waiting")
    page.click("#edit-stop")
    assert ended(page, "edit", "stopped") == "stopped before it began"
    go.set()
    assert [*before.states()][-1].phase == "done"
    write(page, "label:has-text('Its settings') :is(input, textarea)", "what")
    page.click("#edit-draw")
    page.wait_for_selector("#edit-status .failed")
    assert "'what' is no setting" in page.inner_text("#edit-status")
