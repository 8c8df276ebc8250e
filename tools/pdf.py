"""Print the built book into one typeset PDF with headless Chromium, offline.

    python tools/pdf.py [FOLDER] [FILE]   # by default _build/html, _build/pdf/book.pdf

The pages are printed in reading order, all but the API's, with what folds open, long
lines of code wrapped and wide equations and tables made narrower.  A title page,
contents and page numbers are added, and links between pages lead within the file.
"""

from __future__ import annotations

import asyncio
import base64
import html
import io
import json
import posixpath
import re
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urldefrag

from console import NAMES, Tab, browser, started
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, Fit, FloatObject, NameObject, NullObject

LEFT_OUT = "book/api/"
SCALE, MARGIN = 0.75, 0.7  # of the screen's size; inches
WIDTH = round((8.27 - 2 * MARGIN) * 96 / SCALE)  # pixels of a line
PAPER = {
    "paperWidth": 8.27,
    "paperHeight": 11.69,
    "marginTop": MARGIN,
    "marginBottom": MARGIN,
    "marginLeft": MARGIN,
    "marginRight": MARGIN,
}
STYLE = Path(__file__).with_name("static") / "pdf.css"
PREPARE = """async (style, fragments) => {
  await window.MathJax?.startup?.promise;
  document.documentElement.dataset.theme = "light";
  document.head.append(Object.assign(document.createElement("style"),
    {textContent: style}));
  document.querySelectorAll("details").forEach((part) => (part.open = true));
  document.querySelectorAll(".toggle-hidden").forEach((part) =>
    part.classList.remove("toggle-hidden"));
  document.querySelectorAll("img").forEach((image) => (image.loading = "eager"));
  await document.fonts.ready;
  await Promise.all([...document.images].map((image) => image.decode().catch(() => 0)));
  for (const part of document.querySelectorAll("mjx-container[display], table")) {
    const inner = part.querySelector("mjx-math") ?? part, around = part.parentElement;
    const number = around.querySelector(".eqno")?.offsetWidth ?? 0;
    const room = around.clientWidth - (number && number + 16);
    const width = Math.max(inner.scrollWidth, inner.getBoundingClientRect().width);
    if (width > room) part.style.zoom = Math.floor((100 * room) / width) / 100;
  }
  const sections = [...document.querySelectorAll("article section section")]
    .filter((part) => part.id && part.parentElement.closest("section section") == null)
    .map((part) => [part.id, part.querySelector("h2")?.innerText.replace(/#$/, "")])
    .filter(([, title]) => title);
  // What other pages and the outline lead to becomes a destination.
  for (const name of new Set([...fragments, ...sections.map(([id]) => id)])) {
    const link = document.createElement("a");
    link.href = "#" + name;
    document.body.append(link);
  }
  const text = (name) => document.querySelector(name)?.innerText.trim() ?? "";
  const title = text("article h1").replace(/#$/, "");
  return {title, sections, version: text(".extra_footer")};
}"""


def reading_order(folder: Path) -> list[str]:
    """Addresses of the pages to print, from the first along the links to the next."""
    first = re.search(r"url=([^\"]+)\"", (folder / "index.html").read_text("utf-8"))[1]
    order, page = [], first
    while page and page not in order:
        order.append(page)
        text = (folder / page).read_text(encoding="utf-8")
        link = re.search(r'<link rel="next"[^>]* href="([^"]+)"', text)
        page = link and posixpath.normpath(
            posixpath.join(posixpath.dirname(page), html.unescape(link[1]))
        )
    return [page for page in order if not page.startswith(LEFT_OUT)]


def fragments(folder: Path, pages: list[str]) -> dict[str, set[str]]:
    """Of each page, the names within it that other pages lead to."""
    found: dict[str, set[str]] = {page: set() for page in pages}
    for page in pages:
        text = (folder / page).read_text(encoding="utf-8")
        for link in re.findall(r'<a[^>]* href="([^"]+#[^"]+)"', text):
            path, name = urldefrag(html.unescape(link))
            target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
            if target in found:
                found[target].add(unquote(name))
    return found


async def _printed(tab: Tab) -> bytes:
    answer = await tab.call(
        "Page.printToPDF",
        printBackground=True,
        scale=SCALE,
        generateTaggedPDF=False,  # the tags would not survive the merger
        **PAPER,
    )
    return base64.b64decode(answer["result"]["data"])


class Part(NamedTuple):
    """One page of the book, printed."""

    title: str
    sections: list[list[str]]  # name within the page and title
    data: bytes


async def _all_printed(port: int, folder: Path, pages: list[str]):
    """The contents and each page, printed, and sheets with their numbers."""
    tab, names = await Tab.opened(port), fragments(folder, pages)
    await tab.call("Page.enable")
    await tab.call("Emulation.setEmulatedMedia", media="print")
    size = {"width": WIDTH, "height": 1200, "deviceScaleFactor": 1, "mobile": False}
    await tab.call("Emulation.setDeviceMetricsOverride", **size)
    parts, version = [], ""
    for page in pages:
        url = f"{folder.as_uri()}/{page}"
        await tab.call("Page.navigate", until="Page.loadEventFired", url=url)
        arguments = json.dumps([STYLE.read_text("utf-8"), sorted(names[page])])
        said = await tab.value(f"({PREPARE})(...{arguments})")
        version = version or said["version"]
        parts.append(Part(said["title"], said["sections"], await _printed(tab)))
    titles = [part.title for part in parts]
    counts = [len(PdfReader(io.BytesIO(part.data)).pages) for part in parts]

    async def front(start: int) -> bytes:
        text = _front(folder, pages, titles, counts, start, version)
        return await _shown(tab, text)

    start = len(PdfReader(io.BytesIO(await front(0))).pages)
    numbers = await _shown(tab, _numbers(start + sum(counts)))
    return [Part("Contents", [], await front(start)), *parts], numbers


async def _shown(tab: Tab, text: str) -> bytes:
    """HTML of our own as a PDF."""
    frame = (await tab.call("Page.getFrameTree"))["result"]["frameTree"]["frame"]["id"]
    await tab.call("Page.setDocumentContent", frameId=frame, html=text)
    return await _printed(tab)


def _front(folder, pages, titles, counts, start, version) -> str:
    """Title and contents; the first of `pages` begins behind page `start`."""
    lines, number = [], start + 1
    for page, title, count in zip(pages, titles, counts):
        link = f'<a href="{folder.as_uri()}/{page}">{html.escape(title)}</a>'
        lines.append(f"<p><span>{link}</span><span>{number}</span></p>")
        number += count
    return (
        "<style>body{font:16px sans-serif}a{color:inherit;text-decoration:none}"
        "p{display:flex;justify-content:space-between;gap:2em}</style>"
        f"<h1>{html.escape(titles[0])}</h1><p>{html.escape(version)}</p>"
        f"<h2>Contents</h2>{''.join(lines)}"
    )


def _numbers(count: int) -> str:
    """Sheets with nothing but their number below."""
    sheet = "height:100vh;display:flex;align-items:end;justify-content:center"
    sheets = (
        f'<div style="{sheet};break-after:{"page" if n < count else "auto"}">{n}</div>'
        for n in range(1, count + 1)
    )
    return (
        "<style>*{margin:0}body{font:13px sans-serif;position:relative;top:0}"
        "@page{margin:0 0 8mm}</style>" + "".join(sheets)
    )


def merged(parts: list[Part], pages: list[str], base: str) -> PdfWriter:
    """One document of all parts; links to `pages` below `base` lead within it."""
    writer, readers = PdfWriter(), [PdfReader(io.BytesIO(part.data)) for part in parts]
    begins, known = [], []
    for part, reader in zip(parts, readers):
        begins.append(len(writer.pages))
        writer.append(reader, import_outline=False)
        places = {
            name.removeprefix("/"): (
                reader.get_destination_page_number(d),
                d.left,
                d.top,
            )
            for name, d in reader.named_destinations.items()
        }
        known.append(places)
        chapter = writer.add_outline_item(title=part.title, page_number=begins[-1])
        for name, title in part.sections:
            page, left, top = places[name]
            writer.add_outline_item(
                title=title,
                page_number=begins[-1] + page,
                parent=chapter,
                fit=Fit.xyz(left, top),
            )
    files = {f"{base}/{page}": part for part, page in enumerate(pages, 1)}
    for part, reader in enumerate(readers):
        for place in range(begins[part], begins[part] + len(reader.pages)):
            _relink(writer, writer.pages[place], part, files, begins, known, base)
    return writer


def _relink(writer, page, part, files, begins, known, base) -> None:
    """Let the links of one page lead to pages of this document, or nowhere."""
    kept = ArrayObject()
    for reference in page.get("/Annots", ()):
        link = reference.get_object()
        action = link.get("/A", {})
        name = link.get("/Dest", action.get("/D"))
        target = part
        if "/URI" in action:
            url, name = urldefrag(action["/URI"])
            if not url.startswith(base):
                kept.append(reference)
                continue
            if url not in files:
                continue
            target, name = files[url], unquote(name)
        number, left, top = known[target].get(str(name).removeprefix("/"), (0, 0, None))
        spot = [
            NullObject() if v is None else FloatObject(v) for v in (left, top, None)
        ]
        goal = writer.pages[begins[target] + number].indirect_reference
        link[NameObject("/Dest")] = ArrayObject([goal, NameObject("/XYZ"), *spot])
        link.pop("/A", None)
        kept.append(reference)
    page[NameObject("/Annots")] = kept


def write_pdf(folder: Path, file: Path, chromium: str) -> int:
    """Print the book in `folder` into `file`; return the number of pages."""
    folder = folder.resolve()
    pages = reading_order(folder)
    with started(chromium) as port:
        parts, numbers = asyncio.run(_all_printed(port, folder, pages))
    writer = merged(parts, pages, folder.as_uri())
    for page, number in zip(writer.pages, PdfReader(io.BytesIO(numbers)).pages):
        page.merge_page(number)
    writer.compress_identical_objects()
    writer.add_metadata({"/Title": parts[1].title})
    file.parent.mkdir(parents=True, exist_ok=True)
    with io.BytesIO() as buffer:
        writer.write(buffer)
        file.write_bytes(buffer.getvalue())
    return len(writer.pages)


def main(arguments: list[str]) -> int:
    """Command line."""
    defaults = ["_build/html", "_build/pdf/book.pdf"]
    folder, file = map(Path, [*arguments, *defaults[len(arguments) :]])
    if not (folder / "index.html").is_file():
        print(f"pdf: {folder} holds no book; build it first")
        return 2
    chromium = browser()
    if chromium is None:
        print(f"pdf: none of {', '.join(NAMES)} is installed; install one of them")
        return 2
    print(f"pdf: {write_pdf(folder, file, chromium)} pages in {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
