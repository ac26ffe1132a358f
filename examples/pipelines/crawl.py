# SPDX-License-Identifier: MIT
"""Crawl a site of which nothing is known but its first page: a task that returns more of itself.

    visit /            returns  visit.s().map(links) | gather.s()
      visit /a.py      returns  its size and digest
      visit /sub/      returns  visit.s().map(links) | gather.s()
        …

    python examples/pipelines/crawl.py --folder ~/letters

A task that returns a composition becomes it: the node that ran it holds no worker meanwhile, and
has the value of the composition when that has ended. What it became is stored in the step that ends
its body, so a worker that is killed neither loses a page nor fetches one again that it had settled.

The site is a folder, served on this machine by Python's own ``http.server`` while the example runs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import ProxyHandler, build_opener

from flowq import ConfigError, FlowQ, StoreError, TaskError

Page = tuple[str, int, str]  # path, bytes, digest

q = FlowQ("crawl")


# --- the tasks -----------------------------------------------------------------------------------


@q.task(retries=3, retry_delay=0.5, retry_on=OSError)
def visit(url: str) -> Any:
    """Fetch a page; a list of links becomes a visit to each of them."""
    body, is_list = fetch(url)
    if not is_list:
        return [(unquote(urlsplit(url).path), len(body), hashlib.sha256(body).hexdigest())]
    return visit.s().map(links_in(body.decode(), url)) | gather.s()


@q.task
def gather(parts: list[list[Page]]) -> list[Page]:
    """Put together what was found behind each link."""
    return [page for part in parts for page in part]


# --- the computation -----------------------------------------------------------------------------


def fetch(url: str) -> tuple[bytes, bool]:
    """Fetch a page; gives its content, and whether it lists others."""
    with build_opener(ProxyHandler({})).open(url, timeout=30) as answer:
        return answer.read(), url.endswith("/") and answer.headers.get_content_type() == "text/html"


class Links(HTMLParser):
    """Collects where the links of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def links_in(html: str, url: str) -> list[str]:
    """Give the links of a page that lead further down; so every crawl ends."""
    parser = Links()
    parser.feed(html)
    links = {urljoin(url, link) for link in parser.found}
    return sorted(link for link in links if link.startswith(url) and wanted(link[len(url) :]))


def wanted(link: str) -> bool:
    """Whether it is worth following; what Python writes by itself comes and goes."""
    return bool(link) and not link.startswith("__pycache__")


def on_disk(folder: Path) -> Iterable[Page]:
    """Look at the same pages without flowq and without a server, for the check."""
    for path in folder.rglob("*"):
        inner = path.relative_to(folder)
        if path.is_file() and "__pycache__" not in inner.parts:
            data = path.read_bytes()
            yield f"/{inner.as_posix()}", len(data), hashlib.sha256(data).hexdigest()


# --- the site ------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine; gives the URL of its first page."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


# --- the command ---------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    folder = args.folder.resolve()
    q.use_url(args.url)
    try:
        with served(folder) as url, q.consumer(workers=args.workers, kind=args.kind):
            began = time.perf_counter()
            run = visit.s(url).start()
            pages: list[Page] = run.get(blocking=True)
            took = time.perf_counter() - began
    except TaskError as err:
        print(f"{err.node or err.task} failed: {err}", file=sys.stderr)
        return 1
    size = sum(size for _, size, _ in pages)
    print(f"{len(pages):,} pages, {size:,} bytes, in {took:.1f} s")
    for path, size, _ in sorted(pages, key=lambda page: (-page[1], page[0]))[: args.top]:
        print(f"{size:11,}  {path}")
    same = sorted(pages) == sorted(on_disk(folder))
    print("check: " + ("the same as on disk" if same else "THE PAGES DIFFER"))
    return 0 if same else 1


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    here = Path(__file__).resolve().parent / "out"
    here.mkdir(exist_ok=True)
    parser = argparse.ArgumentParser(description="Crawl a site by a task that returns itself.")
    add = parser.add_argument
    url = os.environ.get("FLOWQ_URL") or f"sqlite:///{here / 'crawl.db'}"
    add("--url", default=url, help="store; FLOWQ_URL, else a SQLite file in out/")
    add("--workers", type=int, default=2, metavar="N")
    add("--kind", choices=("process", "thread"), default="process")
    library = Path(sysconfig.get_paths()["stdlib"])
    add("--folder", type=Path, default=library / "idlelib", help="what the site is made of")
    add("--top", type=int, default=5, metavar="N", help="how many of the largest pages are shown")
    return parser.parse_args(argv)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ConfigError, StoreError) as err:  # such as a wrong --url; nothing to be traced
        sys.exit(f"crawl: {err}")
    except KeyboardInterrupt:
        sys.exit(130)
