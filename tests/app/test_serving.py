"""What of the disk a browser gets, and from where: the page's server asked directly, without a browser."""

import json

import pytest

gradio = pytest.importorskip("gradio", reason='the page needs gradio: pip install "flux[app]"')

from starlette.applications import Starlette  # noqa: E402
from starlette.responses import PlainTextResponse, Response  # noqa: E402
from starlette.routing import Route  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from flux.app.serving import LONGEST_BODY, app_kwargs, file_of_run  # noqa: E402


@pytest.fixture
def runs(tmp_path):
    runs = tmp_path / "output"
    for name in (
        "test-1/index.html",
        "test-1/deep/a.png",
        "test-1/x.py",
        "test-1/.flux.made",
        "uploads/a.png",
    ):
        (runs / name).parent.mkdir(parents=True, exist_ok=True)
        (runs / name).write_text("inside")
    (runs / "test-1" / "run.json").write_text("{}")
    (tmp_path / "secret.png").write_text("secret")
    (runs / "test-1" / "link.png").symlink_to(tmp_path / "secret.png")
    return runs


async def answer(request):
    sent = (await request.body()).decode()
    return PlainTextResponse(f"gradio's own{sent and ' ' + sent}")


def client(runs, host="127.0.0.1", is_local=True, auth=None):
    app = Starlette(**app_kwargs(runs, host, is_local=is_local))
    app.router.routes.append(Route("/{path:path}", answer, methods=["GET", "POST"]))
    app.auth, app.tokens, app.cookie_id = auth, {"right": "anna"}, "7"
    return TestClient(app, base_url="http://127.0.0.1:7860")


TRICKS = (
    *("../../secret.png", "test-1/../../../secret.png", "..%2f..%2fsecret.png", "%2e%2e/%2e%2e/secret.png"),
    *("/etc/passwd", "//etc/passwd", "test-1//deep/a.png", "test-1/.flux.made"),
    *("test-1\\..\\..\\..\\secret.png", "uploads/a.png", "test-1/link.png", "test-1/x.py", "test-1", ""),
    *("test-1/deep/a.png%00.html", "....//....//secret.png", "test-1/deep/a.png/"),
)


@pytest.mark.parametrize("path", TRICKS)
def test_no_other_file_is_served(runs, path):
    answer = client(runs).get(f"/runs/{path}")
    assert answer.status_code in (400, 404) or answer.text == "gradio's own"
    assert "secret" not in answer.text and "inside" not in answer.text
    assert file_of_run(runs, path) is None


@pytest.mark.parametrize("path", ["test-1/index.html", "test-1/deep/a.png"])
def test_files_of_runs_are_served(runs, path):
    assert client(runs).get(f"/runs/{path}").text == "inside"


def test_without_its_texts_a_picture_has_the_same_pixels(runs):
    from PIL import Image, PngImagePlugin

    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("prompt", "a secret prompt")
    file = runs / "test-1" / "b.png"
    Image.effect_noise((20, 10), 50).convert("RGB").save(file, pnginfo=texts)
    whole, bare = (client(runs).get(f"/runs/test-1/b.png{query}").content for query in ("", "?bare"))
    assert whole == file.read_bytes() and b"a secret prompt" in whole
    assert b"a secret prompt" not in bare
    (runs / "c.png").write_bytes(bare)
    assert Image.open(runs / "c.png").tobytes() == Image.open(file).tobytes()


def test_who_has_not_logged_in_gets_no_file(runs):
    asking = client(runs, auth=[("anna", "secret")])
    assert asking.get("/runs/test-1/index.html").status_code == 401
    assert asking.get("/runs/test-1/index.html", cookies={"access-token-7": "wrong"}).status_code == 401
    assert asking.get("/runs/test-1/index.html", cookies={"access-token-7": "right"}).text == "inside"


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=https://example.org/",
        "/proxy=https://example.org/",
        "/gradio_api/file=http://example.org/a.png",
        "/gradio_api/file=https:/example.org/a.png",
        "/gradio_api/file%3Dhttp://example.org/a.png",
        "/file=http://example.org/a.png",
    ],
)
def test_nothing_is_fetched_from_elsewhere(runs, path):
    assert client(runs).get(path).status_code == 403


def test_a_browser_is_told_to_fetch_nothing_from_elsewhere(runs):
    policy = client(runs).get("/anything").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy


def test_a_name_of_someone_elses_gets_no_answer(runs):
    asking = client(runs)
    assert asking.get("/runs/test-1/index.html", headers={"host": "evil.example"}).status_code == 400
    open_to_others = client(runs, host="0.0.0.0", is_local=False)
    answer = open_to_others.get("/runs/test-1/index.html", headers={"host": "my-box:7860"})
    assert answer.status_code == 200


FILE = {"meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize("address", ["http://example.org/a.png", "https://example.org", " HTTP:example.org"])
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "", "application/json; charset=utf-8"])
def test_no_file_that_is_sent_is_an_address(runs, address, kind):
    body = json.dumps({"data": ["a", [{"layers": [FILE | {"path": address}]}]]})
    answer = client(runs).post("/gradio_api/queue/join", content=body, headers={"content-type": kind})
    assert (answer.status_code, answer.text) == (403, "nothing is fetched from elsewhere")


@pytest.mark.parametrize(
    "body", ['{"data": ["http://example.org", {"path": "/tmp/a.png"}]}', "no JSON", "[" * 10**5, ""]
)
def test_what_else_is_sent_arrives_whole(runs, body):
    assert client(runs).post("/gradio_api/queue/join", content=body).text == f"gradio's own {body}".strip()


def test_no_more_is_read_than_a_page_sends(runs):
    assert client(runs).post("/gradio_api/queue/join", content=b"1" * (LONGEST_BODY + 1)).status_code == 413


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "my-box:7860", "abc.gradio.live"])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://my-box:7861", "http://my-box:7860.evil.example"]
)
def test_pages_elsewhere_get_no_answer(runs, host, origin):
    asking = client(runs, is_local=False)
    for method in ("GET", "POST", "OPTIONS"):
        answer = asking.request(method, "/gradio_api/upload", headers={"host": host, "origin": origin})
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    for own in (f"http://{host}", f"https://{host.upper()}"):
        assert asking.post("/a", headers={"host": host, "origin": own}).status_code == 200
    by_proxy = {"host": host, "origin": "https://flux.example", "x-forwarded-host": "flux.example"}
    assert asking.post("/a", headers=by_proxy).status_code == 200


def test_a_file_of_gradios_page_is_read_and_compressed_once(runs):
    brotli = pytest.importorskip("brotli")
    reads = []
    whole = b"export const a = 1;\n" * 99

    def asset(request):
        reads.append(request.url.path)
        found = request.path_params["path"].startswith("index")
        return Response(whole if found else b"", 200 if found else 404, media_type="text/javascript")

    app = Starlette(**app_kwargs(runs, "127.0.0.1", is_local=True))
    app.router.routes.append(Route("/assets/{path:path}", asset))
    browser = TestClient(app, base_url="http://127.0.0.1:7860")

    def ask(name, coding, **more):
        with browser.stream("GET", f"/assets/{name}", headers={"accept-encoding": coding} | more) as answer:
            return answer, b"".join(answer.iter_raw())

    for _ in range(3):
        answer, body = ask("index-1.js", "gzip, br", range="bytes=0-3")
        assert (answer.status_code, answer.headers["content-encoding"]) == (200, "br")
        assert brotli.decompress(body) == whole and len(body) == int(answer.headers["content-length"])
        assert "immutable" in answer.headers["cache-control"] and "default-src" in str(answer.headers)
        assert ask("index-1.js", "identity")[1] == whole
    assert len(reads) == 2
    for _ in range(2):  # what is not there may come
        assert ask("other.js", "br")[0].status_code == 404
    assert len(reads) == 4
