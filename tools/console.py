"""Open every built page in headless Chromium, from files and over HTTP.

    python tools/console.py [FOLDER]      # FOLDER is _build/html by default

Prints every error that a page logs, every request to another host and everything that
is wider than its place, on screens of four widths, light from files and dark over
HTTP; ends with status 1 if there was one.  How far it is shows on a terminal.  Where
no Chromium is found, it says so and ends with 0.
"""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import websocket_connect
from tqdm import tqdm

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PAGE_LIMIT = 60  # seconds
WIDTHS = (1400, 1280, 820, 390)  # pixels of a screen
SCROLLS = 820  # and below: code, tables and equations may scroll inside their own box
WIDE = """(scrolls) => {
  const article = document.querySelector("article") ?? document.body;
  const found = [];
  if (!article) return found;
  const name = (e) => `<${e.localName}${e.id && "#" + e.id} ${e.className}> ` +
    `${e.textContent.trim().slice(0, 60)}`;
  const all = document.scrollingElement.scrollWidth;
  if (all > innerWidth) found.push(`scrolls sideways, ${all} px`);
  const edge = article.getBoundingClientRect().right + 1;
  const visit = (e) => {
    const style = getComputedStyle(e);
    if (style.display === "none" || style.visibility === "hidden") return;
    if (["auto", "scroll"].includes(style.overflowX)) {
      if (!scrolls && e.scrollWidth > e.clientWidth + 1)
        found.push(`${e.scrollWidth - e.clientWidth} px do not fit: ${name(e)}`);
      if (e.getBoundingClientRect().right > edge) found.push(`too wide: ${name(e)}`);
    } else if (style.overflowX !== "hidden") {
      if (e.getBoundingClientRect().right > edge) found.push(`too wide: ${name(e)}`);
      else for (const child of e.children) visit(child);
    }
  };
  visit(article);
  document.querySelectorAll("article details").forEach((part) => (part.open = true));
  visit(article);
  return [...new Set(found)];
}"""


def browser() -> str | None:
    """The path of a Chromium, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class _Server(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        """Answer as a host does that has an icon of its own.

        For a page that names none (the redirect at the root of the book) a browser asks
        the root of the host, sooner or later: the page did not.
        """
        if self.path == "/favicon.ico":
            self.send_response(http.HTTPStatus.NO_CONTENT)
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *arguments):
        """Say nothing."""


def complaint(event: dict, base: str) -> str | None:
    """What is wrong according to one event of the browser, if anything."""
    method, data = event.get("method"), event.get("params", {})
    if method == "Runtime.exceptionThrown":
        details = data["exceptionDetails"]
        return details.get("exception", {}).get("description") or details["text"]
    if method == "Runtime.consoleAPICalled" and data["type"] == "error":
        return " ".join(str(a.get("value", a)) for a in data["args"])
    if method == "Log.entryAdded" and data["entry"]["level"] == "error":
        return f"{data['entry']['text']} {data['entry'].get('url', '')}"
    if method == "Network.requestWillBeSent":
        url = data["request"]["url"]
        if not url.startswith((base, "data:", "blob:")):
            return f"request to {url}"
    return None


class Tab:
    """A tab of a browser, over the protocol of its developer tools."""

    def __init__(self, socket, hear=None):
        self.socket, self.hear, self.number = socket, hear, 0

    @classmethod
    async def opened(cls, port: int, hear=None) -> Tab:
        """The tab of the browser at `port`; `hear` is called with every event."""
        answer = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/json")
        tab = next(t for t in json.loads(answer.body) if t["type"] == "page")
        address = tab["webSocketDebuggerUrl"]
        return cls(await websocket_connect(address, max_message_size=1 << 28), hear)

    async def call(self, method: str, until: str | None = None, **parameters) -> dict:
        """Send a command; return its answer once the event `until` has been seen."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        await self.socket.write_message(json.dumps(message))
        answer = seen = None
        while answer is None or (until and not seen):
            read = self.socket.read_message()
            event = json.loads(await asyncio.wait_for(read, PAGE_LIMIT))
            answer = event if event.get("id") == self.number else answer
            seen = seen or event.get("method") == until
            if self.hear:
                self.hear(event)
        return answer

    async def value(self, expression: str):
        """The value of an expression of the page, once it is known.

        None, too, if the page leads on to another one meanwhile.
        """
        options = {"awaitPromise": True, "returnByValue": True}
        answer = await self.call("Runtime.evaluate", expression=expression, **options)
        result = answer.get("result", {})
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"]["description"])
        return result.get("result", {}).get("value")

    async def screen(self, width, theme):
        """Show the page on a screen of `width` pixels, in a `theme`."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def open(self, address):
        """Load a page and wait for its mathematics."""
        await self.call("Page.navigate", until="Page.loadEventFired", url=address)
        await self.value("window.MathJax?.startup?.promise.then(() => 1) ?? 1")


async def _run(port: int, base: str, theme: str, pages, progress) -> list[str]:
    """Complaints about `pages`, paths below the address `base`, in a theme."""
    page, found = "", []

    def hear(event):
        if text := complaint(event, base):
            found.append(f"{page}: {text}")

    tab = await Tab.opened(port, hear)
    await tab.call("Log.clear")
    for domain in ("Page", "Runtime", "Log", "Network"):
        await tab.call(f"{domain}.enable")
    for page in pages:
        await tab.screen(WIDTHS[0], "light" if theme == "dark" else "dark")
        await tab.open(base + page)
        for width in WIDTHS:
            await tab.screen(width, theme)
            narrow = str(width <= SCROLLS).lower()
            for wide in await tab.value(f"({WIDE})({narrow})") or ():
                found.append(f"{page}, {width} px, {theme}: {wide}")
        progress.update()
    return found


@contextmanager
def started(chromium: str):
    """A headless browser for as long as it is needed; gives the port of its tools."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                chromium,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        try:
            for line in process.stderr:
                if "DevTools listening on ws://" in line:
                    break
            yield int(line.split("ws://")[1].split("/")[0].rpartition(":")[2])
        finally:
            process.terminate()
            process.stderr.close()
            process.wait()


def check(folder: Path, chromium: str) -> list[str]:
    """Every complaint about the pages below `folder`, from files and over HTTP."""
    folder = folder.resolve()
    paths = (path.relative_to(folder) for path in folder.rglob("*.html"))
    pages = sorted(p.as_posix() for p in paths if p.parts[0] != "_static")  # templates
    if not pages:
        return [f"{folder} holds no page"]
    handler = functools.partial(_Server, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    bases = ((f"{folder.as_uri()}/", "light"), (address, "dark"))
    bar = tqdm(total=len(bases) * len(pages), desc="pages in Chromium", disable=None)
    try:
        with started(chromium) as port, bar:
            runs = (asyncio.run(_run(port, *at, pages, bar)) for at in bases)
            return [text for found in runs for text in found]
    finally:
        server.shutdown()
        server.server_close()


def main(arguments: list[str]) -> int:
    """Command line; the exit status is 0 if no page complained."""
    folder, chromium = Path(arguments[0] if arguments else "_build/html"), browser()
    if not folder.is_dir():
        print(f"console: {folder} is not a folder; build the book first")
        return 2
    if chromium is None:
        print(f"console: not checked, none of {', '.join(NAMES)} is installed")
        return 0
    print(f"console: every page of {folder} in {chromium}; takes minutes", flush=True)
    found = check(folder, chromium)
    print(*found, f"console: {len(found)} complaints", sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
