"""The page: its files and its chart library, given to browsers so that a reload is quick.

Every file is read and compressed once, at the start. A browser keeps it and asks whether it is
still the same (ETag), which costs a few bytes. The charts are drawn by Chart.js, as it comes with
the installed package `chartkick`; no copy of it is kept here.

Not covered: two versions of the program behind one address; files are kept by the browser under
their names, and looked at again on every load.
"""

import gzip
import hashlib
from dataclasses import dataclass
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import PurePosixPath

from fastapi import FastAPI, Request, Response

from node.gate import problem

PAGE = "page.html"
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
LIBRARY = {
    "Chart.bundle.js": ("chartkick", "chartkick/django/static/chartkick/Chart.bundle.js"),
}
"""Name -> distribution, and the file in it."""
KEPT = "private, no-cache"
"""A browser may keep a file, and asks before it uses it; nobody between may."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent."""

    kind: str
    plain: bytes
    packed: bytes
    """By gzip."""
    tag: str
    """Of its bytes, as an ETag."""

    def answer(self, request: Request) -> Response:
        """To a request for it: the file, or that it has not changed."""
        headers = {"ETag": self.tag, "Cache-Control": KEPT, "Vary": "Accept-Encoding"}
        known = request.headers.get("if-none-match", "").split(",")
        if self.tag in (one.strip().removeprefix("W/") for one in known):
            return Response(status_code=304, headers=headers)
        encodings = request.headers.get("accept-encoding", "").split(",")
        if "gzip" not in (one.partition(";")[0].strip() for one in encodings):
            return Response(self.plain, media_type=self.kind, headers=headers)
        headers["Content-Encoding"] = "gzip"
        return Response(self.packed, media_type=self.kind, headers=headers)


def load_assets() -> dict[str, Asset]:
    """Name -> file: all that the page consists of, itself included.

    Raises:
        FileNotFoundError: the chart library is not where its package has it.
    """
    folder = files("node") / "dashboard"
    found = {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}
    for name, (package, place) in LIBRARY.items():
        with open(str(distribution(package).locate_file(place)), "rb") as file:
            found[name] = file.read()
    return {name: _asset(name, plain) for name, plain in found.items()}


def _asset(name: str, plain: bytes) -> Asset:
    tag = f'"{hashlib.sha256(plain).hexdigest()[:32]}"'
    return Asset(KINDS[PurePosixPath(name).suffix], plain, gzip.compress(plain, mtime=0), tag)


def add_page(app: FastAPI) -> None:
    """Adds the page and its files."""
    assets = load_assets()

    @app.get("/", summary="The page", include_in_schema=False)
    async def index(request: Request) -> Response:
        return assets[PAGE].answer(request)

    @app.get("/assets/{name}", include_in_schema=False)
    async def asset(request: Request, name: str) -> Response:
        if name == PAGE or name not in assets:
            return problem(404, "there is no such file")
        return assets[name].answer(request)
