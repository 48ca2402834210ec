"""The files of the page: which are served, how a browser keeps them, and what they never do."""

import gzip
import re
import tomllib
from importlib.metadata import requires
from importlib.resources import files
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from node.page import KINDS, LIBRARY, PAGE, add_page, load_assets
from node.way_in import POLICY, STYLE, way_in

DASHBOARD = Path(str(files("node") / "dashboard"))
OURS = sorted(path.name for path in DASHBOARD.iterdir())
SCRIPTS = [name for name in OURS if name.endswith(".js")]


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    add_page(app)
    return TestClient(app)


@pytest.mark.parametrize("name", [*OURS, *LIBRARY])
def test_a_file_is_sent_whole_packed_or_not_and_once(client: TestClient, name: str) -> None:
    path = "/" if name == PAGE else f"/assets/{name}"
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    assert plain.headers["content-type"].startswith(KINDS[Path(name).suffix])
    assert "content-encoding" not in plain.headers
    packed = client.get(path, headers={"Accept-Encoding": "br, gzip;q=0.8"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content  # the client has unpacked it
    if name in OURS:
        assert plain.content == (DASHBOARD / name).read_bytes()
    for known in (plain.headers["etag"], f'"other", W/{plain.headers["etag"]}'):
        again = client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == plain.headers["etag"]
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert plain.headers["cache-control"] == "private, no-cache"
    assert plain.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("name", [PAGE, "..%2fpage.py", "%2e%2e", "", "chartkick.js", "a/b"])
def test_nothing_else_is_sent(client: TestClient, name: str) -> None:
    assert client.get(f"/assets/{name}").status_code == 404


def test_packed_files_are_worth_it() -> None:
    library = load_assets()["Chart.bundle.js"]
    assert len(library.packed) < len(library.plain) / 4
    assert gzip.decompress(library.packed) == library.plain


def test_the_files_of_the_page_are_part_of_the_package() -> None:
    project = tomllib.loads((DASHBOARD.parents[1] / "pyproject.toml").read_text())
    assert "dashboard/*" in project["tool"]["setuptools"]["package-data"]["node"]
    wanted = {one.split("=")[0] for one in project["project"]["dependencies"]}
    assert {package for package, _ in LIBRARY.values()} <= wanted


def test_the_chart_library_needs_nothing_else() -> None:
    for package, _ in LIBRARY.values():
        assert not requires(package)


def test_the_chart_library_runs_without_making_code_or_styles_from_text() -> None:
    script = load_assets()["Chart.bundle.js"].plain.decode()
    banned = (
        r"\beval\(|new Function|innerHTML|insertRule|createElement\('style|setAttribute\('style"
    )
    assert re.findall(banned, script) == []


def test_the_page_runs_and_loads_nothing_but_its_own_files() -> None:
    page = (DASHBOARD / "page.html").read_text()
    assert re.findall(r'(?:src|href)="([^"]+)"', page)
    for place in re.findall(r'(?:src|href)="([^"#]+)"', page):
        assert place.removeprefix("/assets/") in {*OURS, *LIBRARY} - {PAGE}
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_page_never_reads_a_text_as_markup(name: str) -> None:
    script = (DASHBOARD / name).read_text()
    banned = r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|Function\(|\.srcdoc|href"
    assert re.findall(banned, script) == []
    assert re.findall(r"https?://", script) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_short_says_its_job_and_imports_what_there_is(name: str) -> None:
    script = (DASHBOARD / name).read_text()
    assert script.startswith("// ")
    assert script.count("\n") < 300
    for imported in re.findall(r'from "([^"]+)"', script):
        assert imported.removeprefix("./") in SCRIPTS


def test_every_script_is_used() -> None:
    page = (DASHBOARD / "page.html").read_text()
    texts = page + "".join((DASHBOARD / name).read_text() for name in SCRIPTS)
    for name in SCRIPTS:
        assert f'/{name}"' in texts, name


def test_who_has_no_token_is_asked_for_it_by_a_page_that_loads_nothing() -> None:
    answer = way_in()
    page = bytes(answer.body).decode()
    assert answer.status_code == 401
    assert STYLE in page and "sapo status" in page and 'name="token"' in page
    assert not re.search(r"\ssrc=|\shref=|<script", page)
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY and "default-src 'none'" in POLICY
    assert "not the token" not in page
    assert "not the token" in bytes(way_in(is_wrong=True).body).decode()
