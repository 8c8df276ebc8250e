"""The reference pages say what the package is: modules, names, commands."""

import html as html_module
import importlib
import json
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
import typer
from pybtex.database import parse_file
from pypdf import PdfReader
from typer.testing import CliRunner

import prunefair

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import claims  # noqa: E402
import colophon  # noqa: E402
import console  # noqa: E402
import pdf  # noqa: E402
import reference  # noqa: E402

from prunefair import cli  # noqa: E402

needs_chromium = pytest.mark.skipif(
    console.browser() is None, reason="no Chromium is installed"
)


def test_every_module_with_public_names_has_its_page_and_no_other(tmp_path):
    stale = tmp_path / "fairness" / "gone.md"
    stale.parent.mkdir()
    stale.write_text("# gone")
    reference.write_pages(tmp_path)
    pages = {
        path.relative_to(tmp_path).with_suffix("").as_posix().replace("/", "."): path
        for path in tmp_path.rglob("*.md")
    }
    holding = {}
    for found in pkgutil.walk_packages(prunefair.__path__, "prunefair."):
        if found.ispkg or found.name.rpartition(".")[2].startswith("_"):
            continue
        module = importlib.import_module(found.name)
        names = {
            name
            for name, value in vars(module).items()
            if callable(value)
            and not name.startswith("_")
            and (isinstance(value, type) or type(value).__module__ != "typing")
            and getattr(value, "__module__", None) == module.__name__
            and getattr(value, "__name__", None) == name
        }
        if names:
            holding[found.name.removeprefix("prunefair.")] = names
    assert "main" in holding.pop("cli")  # the page of the commands is its page
    assert pages.keys() == holding.keys() and len(pages) > 30
    for name, path in pages.items():
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"^\| `(\w+)` \|", text, re.M)) == holding[name]
        assert f"[`prunefair.{name}`](" in text


def test_pages_that_stay_are_not_written_again(tmp_path):
    reference.write_pages(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.md")}
    reference.write_pages(tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_list_holds_every_page_once_and_the_contents_take_them_all():
    text = reference.module_list(ROOT)
    assert set(re.findall(r"`prunefair\.(\w+)`", text)) == set(prunefair.__all__)
    listed = re.findall(r"\]\(api/([\w/]+)\.md\)", text)
    assert sorted(listed) == sorted(reference.modules())
    chapters = reference._order(ROOT)
    assert [p for p in listed if p in chapters] == chapters
    contents = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    for folder in {p.rpartition("/")[0].partition("/")[0] for p in listed}:
        assert f"glob: book/api/{folder}/**" in contents or not folder


def test_the_command_page_holds_every_option_that_help_shows():
    text = reference.command_list()
    sections = dict(
        re.findall(r"^## prunefair (\w+)\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    )
    commands = typer.main.get_command(cli.app).commands
    assert sections.keys() == commands.keys() and len(sections) >= 4
    for name, section in sections.items():
        shown = CliRunner().invoke(cli.app, [name, "--help"], env={"COLUMNS": "200"})
        options = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", shown.stdout))
        terms = " ".join(re.findall(r"^(`-.*)\n: \S", section, re.M))
        assert set(re.findall(r"`(--[\w-]+)`", terms)) == options - {"--help"}
        assert "`--json`\n: End with one JSON object" in section
    assert "`--ratio` (number)\n: Share" in sections["prune"]
    assert "`--gguf` (text)\n: New" in sections["export"]
    assert "`--seed` (whole number; by default `0`)\n" in sections["bandits"]


def test_every_command_has_an_example_that_its_parser_takes():
    commands = typer.main.get_command(cli.app).commands
    for name, command in commands.items():
        program, named, *rest = shlex.split(command.epilog.removeprefix("Example: "))
        assert (program, named) == ("prunefair", name)
        assert command.make_context(name, rest).params
        with pytest.raises(Exception, match="(?i)no such option"):
            command.make_context(name, [*rest, "--no-such"])


def build(folder, texts, *options):
    """A small book with the settings of the real one."""
    shutil.copy(ROOT / "_config.yml", folder)
    shutil.copytree(ROOT / "tools", folder / "tools")
    (folder / "book").mkdir()
    for name in ("references.bib", "favicon.svg"):
        shutil.copy(ROOT / "book" / name, folder / "book")
    for name, text in texts.items():
        (folder / "book" / f"{name}.md").write_text(text, encoding="utf-8")
    root, *others = texts
    contents = "".join(f"- file: book/{name}\n" for name in others)
    (folder / "_toc.yml").write_text(
        f"format: jb-book\nroot: book/{root}\nchapters:\n{contents}"
    )
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ".", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "_build" / "html"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A small book with a page for each form."""
    folder = tmp_path_factory.mktemp("reference")
    return build(folder, {"page": PAGE, "second": SECOND}, "-W")


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """A small book of API pages, the last of them that of the commands.

    The theorem's label shows wherever there is an index of theorems.
    """
    names = (
        "pipelines.pruning",
        "fairness.policy",
        "fairness.ratings",
        "fairness.uniform",
    )
    names += ("cli",)
    module = "# A\n\n[`prunefair.{}`](../src/prunefair.py)\n".format
    theorem = '\n**Theorem (T).** <a id="thm-a"></a>\nA.\n\n**Proof.**\nB. ∎\n'
    texts = {f"a_{name.rpartition('.')[2]}": module(name) for name in names}
    texts["a_pruning"] += theorem
    folder = tmp_path_factory.mktemp("api")
    return build(folder, texts | {"commands": f"# C\n\n{reference.COMMANDS}\n"})


LINES = [f"{'word ' * (n // 5 - 2)}".ljust(n - 6, "x") + f"END{n}" for n in (88, 180)]
CODE = "```python\n" + "".join(f"# {line[2:]}\n" for line in LINES) + "```\n"
PAGE = f"""\
# A page

By `shortened`, `prunefair.messages`, `Given.error` and `shown(1)`, not `argument`.
By ([Chaudhary and Sinha 2023](references.bib#chaudhary2023alphafair)),
([Condat 2016](references.bib#condat2016simplex)),
([Ubaru et al. 2017](references.bib#ubaru2017fast)),
([Sun et al. 2024](references.bib#sun2024wanda)) and
([Sun et al. 2024](references.bib#sun2024massive)).

| claim | verdict | where |
| --- | --- | --- |
| one | reproduced | here |
| two | not testable here | there |
| three | reproduced | there |

| verdict | number |
| --- | --- |
| **Reproduced** | 2 |

{CODE}
$$
x = {" + ".join(map(str, range(40)))} + \\text{{endofsum}}
$$ (eq-wide)

**Exercise.** <a id="ex-a"></a>
Do it.

<details><summary>Solution</summary>

It was folded.

</details>

[All works](references.bib)
"""
SECOND = """\
# Names

After [(eq-wide)](page.md#eq-wide), see [page](page.md).

[`prunefair.messages`](../src/prunefair/messages.py)

## Names of kernels

[`prunefair.fairness.fast.kernels`](../src/prunefair/fairness/fast/kernels.py)
"""


def page_of(built, name="book/page.html"):
    return (built / name).read_text(encoding="utf-8")


def test_works_have_the_labels_of_the_text_typeset_titles_and_links(built):
    html = page_of(built)
    works = dict(
        re.findall(r'role="doc-backlink"[^>]*>(.*?)</a>.*?<p>(.*?)</p>', html, re.S)
    )
    cited = re.findall(r'<span class="bibtex-citation"[^>]*>\[<a[^>]*>(.*?)</a>', html)
    assert [re.sub("<.*?>", "", text) for text in cited] == [
        "Chaudhary and Sinha, 2023",
        "Condat, 2016",
        "Ubaru et al., 2017",
        "Sun et al., 2024",
        "Sun et al., 2024",
    ]
    assert [*works] == [
        "Chaudhary and Sinha, 2023",
        "Condat, 2016",
        "Sun et al., 2024a",
        "Sun et al., 2024b",
        "Ubaru et al., 2017",
    ]
    fair = works["Chaudhary and Sinha, 2023"]
    formula = '<span class="math notranslate nohighlight">'
    assert f"{formula}\\(\\alpha\\)</span>-Fair Contextual Bandits." in fair
    assert 'href="https://arxiv.org/abs/2310.14164">arXiv:2310.14164</a>' in fair
    assert fair.count("2310.14164") == 2
    assert (
        f"the Simplex and the {formula}\\(\\ell_1\\)</span> Ball."
        in works["Condat, 2016"]
    )
    assert "\\(\\mathrm{tr}(f(A))\\)</span> via" in works["Ubaru et al., 2017"]
    assert 'href="https://doi.org/10.1137/16M1104974"' in works["Ubaru et al., 2017"]
    assert "<em>SIAM Journal" in works["Ubaru et al., 2017"]


FORMS = {
    "doi": r"10\.\d{4,}/\S+",
    "eprint": r"\d\d(0[1-9]|1[0-2])\.\d{4,5}|[a-z-]+/\d\d(0[1-9]|1[0-2])\d{3}",
    "url": r"https://\S+",
}


def test_every_work_says_where_to_find_it():
    works = parse_file(str(ROOT / "book" / "references.bib")).entries
    assert len(works) > 50
    for key, work in works.items():
        assert {"doi", "eprint", "url", "isbn"} & work.fields.keys(), key
        for name, form in FORMS.items():
            if name in work.fields:
                assert re.fullmatch(form, work.fields[name]), (key, name)
        assert "arXiv" not in work.fields.get("note", ""), key


def test_a_number_of_arxiv_is_as_old_as_the_work():
    works = parse_file(str(ROOT / "book" / "references.bib")).entries.values()
    dated = [w.fields for w in works if "." in w.fields.get("eprint", "")]
    for work in dated:
        submitted = 2000 + int(work["eprint"][:2])
        assert submitted <= int(work["year"]) <= submitted + 2, work["title"]
    assert len(dated) > 20


def test_verdicts_are_marked_and_the_page_without_them_has_no_script(built):
    html = page_of(built)
    assert re.findall(r'<tr class="(verdict-[\w-]+)', html) == [
        "verdict-reproduced",
        "verdict-not-testable-here",
        "verdict-reproduced",
    ]
    cells = re.findall(r'<td class="verdict (verdict-[\w-]+)"><p>(.*?)</p>', html)
    assert cells == [
        ("verdict-reproduced", "reproduced"),
        ("verdict-not-testable-here", "not testable here"),
        ("verdict-reproduced", "reproduced"),
        ("verdict-reproduced", "<strong>Reproduced</strong>"),
    ]
    assert re.search(r'src="\.\./_static/claims\.js', html)
    assert "claims.js" not in page_of(built, "book/second.html")


def test_totals_of_the_claims_are_those_of_the_tables():
    text = (ROOT / "book" / "claims.md").read_text(encoding="utf-8")
    counted = [Counter(verdicts) for verdicts in claims.tables(text)]
    assert len(counted) == 2 and all(sum(count.values()) > 10 for count in counted)
    stated = re.findall(r"^\| \*\*(.+?)\*\* \|.*\| (\d+) \| (\d+) \|$", text, re.M)
    assert [name for name, *_ in stated] == [v.capitalize() for v in claims.VERDICTS]
    for name, *numbers in stated:
        assert [int(n) for n in numbers] == [
            count.pop(name.lower(), 0) for count in counted
        ]
    assert not any(counted)  # no other verdict
    css = (ROOT / "tools" / "static" / "claims.css").read_text(encoding="utf-8")
    marks = re.findall(r"^\.verdict-([\w-]+) \{.*--mark: \"(.)\"", css, re.M)
    assert [name.replace("-", " ") for name, _ in marks] == [*claims.VERDICTS]
    assert len({mark for _, mark in marks}) == len(marks)


def test_every_page_has_version_description_and_icon_but_no_commit_outside_git(built):
    pages = [*built.glob("*.html"), *built.glob("book/*.html")]
    assert {"index.html", "search.html", "page.html"} <= {path.name for path in pages}
    for path in pages:
        html = path.read_text(encoding="utf-8")
        about = re.findall(r'<meta name="description" content="([^"]+)"', html)
        assert len(about) == 1 and 0 < len(about[0]) <= colophon.LENGTH + 40
        assert re.search(r'<link rel="icon" href="[./]*_static/favicon.svg"', html)
        assert "<title>" in html
        if path.name != "index.html":
            assert f"<p>Version {prunefair.__version__}</p>" in html


def test_the_commit_is_that_of_the_checkout_itself(tmp_path):
    def git(*arguments):
        done = subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    assert colophon.commit(tmp_path) == ""
    git("init", "--quiet")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("a")
    git("add", "inner")
    git("commit", "--quiet", "--message", "m")
    name = git("rev-parse", "HEAD")
    assert colophon.commit(tmp_path) == name[:10]
    (tmp_path / "untracked").write_text("a")
    assert colophon.commit(tmp_path) == name[:10]
    assert colophon.commit(tmp_path / "inner") == ""  # unpacked within another project
    (tmp_path / "inner" / "file").write_text("b")
    assert colophon.commit(tmp_path) == name[:10] + "+"
    link = f'commit <a href="https://x/y/commit/{name[:10]}">{name[:10]}+</a>'
    assert link in colophon.footer(tmp_path, "https://x/y")


@needs_chromium
def test_buttons_show_the_claims_of_one_verdict_offline(built):
    script = """
        const shown = () => [...document.querySelectorAll("table.claims tbody tr")]
            .filter((row) => row.offsetParent).map((row) => row.cells[0].innerText);
        const buttons = [...document.querySelectorAll(".claims-filter button")];
        const seen = [buttons.map((button) => button.textContent)];
        for (const button of buttons) { button.click(); seen.push(shown()); }
        document.title = JSON.stringify(seen);
    """
    page = built / "book" / "filter.html"
    page.write_text(
        page_of(built).replace(
            "</body>",
            f"<script>addEventListener('load', () => {{{script}}})</script></body>",
        ),
        encoding="utf-8",
    )
    done = subprocess.run(
        [
            console.browser(),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--dump-dom",
            "--virtual-time-budget=10000",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
    )
    page.unlink()
    seen = json.loads(
        html_module.unescape(re.search("<title>(.*?)</title>", done.stdout)[1])
    )
    assert seen == [
        ["all (3)", "reproduced (2)", "not testable here (1)"],
        ["one", "two", "three"],
        ["one", "three"],
        ["two"],
    ]


def words_with_places(page):
    """Words of a page of a PDF, and where on it each run of text begins."""
    found = []

    def visit(text, cm, tm, font, size):
        x = cm[0] * tm[4] + cm[2] * tm[5] + cm[4]
        found.extend((word, x) for word in text.split())

    page.extract_text(visitor_text=visit)
    return found


@needs_chromium
def test_nothing_is_cut_in_the_pdf_and_folded_parts_are_open(built, tmp_path):
    file = tmp_path / "folder" / "book.pdf"
    count = pdf.write_pdf(built, file, console.browser())
    contents, first, *_, last = PdfReader(file).pages
    words = words_with_places(first)
    width = float(first.mediabox.width)
    text = " ".join(word for word, _ in words)
    for end in ("END88", "END180", "endofsum", "folded."):
        assert end in text.replace(" ", "")
    assert all(0 < x < width - 72 * pdf.MARGIN for _, x in words)
    assert "\\" not in text and "\u03b1" in unicodedata.normalize("NFKC", text)
    assert re.search("A page 2 Names 3 1$", " ".join(contents.extract_text().split()))
    assert last.extract_text().split()[-1] == str(count)


@needs_chromium
def test_links_of_the_pdf_lead_within_it_and_none_to_the_file_system(built, tmp_path):
    file = tmp_path / "book.pdf"
    pdf.write_pdf(built, file, console.browser())
    reader = PdfReader(file)
    places = {page.indirect_reference: n for n, page in enumerate(reader.pages)}
    leads = [[] for _ in reader.pages]
    for page, found in zip(reader.pages, leads):
        for link in (one.get_object() for one in page.get("/Annots", ())):
            if "/Dest" in link:
                place, _, _, height, _ = list(link["/Dest"])
                found.append((places[place.indirect_reference], height))
            else:
                assert link["/A"]["/URI"].startswith("https://")
    assert [place for place, _ in leads[0]] == [1, 2]
    top = max(y for _, y in leads[0])
    assert {place for place, _ in leads[1]} >= {1, 2}
    assert leads[2][0][0] == 1 and leads[2][0][1] < top - 100  # to the equation
    assert leads[2][1] == (1, top)
    *titles, sections = reader.outline
    assert [item.title for item in titles] == ["Contents", "A page", "Names"]
    assert [item.title for item in sections] == ["Names of kernels"]
    assert reader.get_destination_page_number(sections[0]) >= 2


def test_names_in_code_font_lead_to_their_documentation(built):
    paragraph = re.search(r"<p>By .*?</p>", page_of(built), re.S)[0]
    targets = re.findall(r'href="second\.html#([\w.-]+)"', paragraph)
    assert targets == [
        "prunefair.messages.shortened",
        "module-prunefair.messages",
        "prunefair.messages.Given.error",
        "prunefair.messages.shown",
    ]
    second = page_of(built, "book/second.html")
    assert all(f'id="{target}"' in second for target in targets)
    for name in reference.public_names(ROOT / "src/prunefair/fairness/fast/kernels.py"):
        assert (
            f'id="prunefair.fairness.fast.kernels.{name}"' in second
        )  # compiled ones too


def text_of(page):
    """The text of HTML."""
    page = re.sub(r"<[^>]+>", "", re.sub("(?=<d[td])", " ", page))
    return " ".join(html_module.unescape(page).split())


def test_commands_keep_their_options_and_help_after_autodoc_read_their_module(api):
    text = text_of(page_of(api, "book/commands.html")).replace("…", "...")
    for shown in (
        "--json End with one JSON object on standard output.",
        "--ratio (number) Share of FFN rows to remove.",
        "--gguf (text) New file for llama.cpp; needs a tokenizer.",
        "--type ",
        "MODEL (text) smollm2, a folder, or a hub name.",
    ):
        assert shown in text
    assert not re.search("--as-json|--kind|RATIO", text)
    for command in typer.main.get_command(cli.app).commands.values():
        for parameter in command.params:
            assert not parameter.help or parameter.help[:30] in text


def test_no_page_shows_an_address_or_a_raw_annotation(api):
    for path in api.rglob("*.html"):
        text = text_of(path.read_text(encoding="utf-8"))
        for raw in (" object at 0x", "<factory>", "~typing", "typing.Any"):
            assert raw not in text or "_modules" in path.parts, (path, raw)


def test_names_that_share_a_line_of_a_docstring_keep_their_type(api):
    html = page_of(api, "book/a_ratings.html")
    assert re.search(r"\bhigh\s*\(int\)", text_of(html))
    assert not re.search(r"\((low|high),\)|<strong>[^<]*,[^ ]", html)


def test_a_class_shows_the_public_methods_of_its_bases_and_links_to_them(api):
    html = page_of(api, "book/a_uniform.html")
    for name in ("Uniform", "UniformBandit"):
        for method in ("probabilities", "update", "save", "load"):
            assert f'id="prunefair.fairness.uniform.{name}.{method}"' in html
    base = "prunefair.fairness.policy.FullInformationPolicy"
    bases = re.findall(r"<p>Bases: .*?</p>", html, re.S)
    assert f'href="a_policy.html#{base}"' in bases[0] and len(bases) == 2
    ids = re.findall(r'id="prunefair\.[\w.]+\.(\w+)"', html)
    assert not {"count", "index", "register"} & {*ids}


def test_settings_name_every_foreign_class_that_one_of_the_package_is_made_from():
    settings = (ROOT / "_config.yml").read_text(encoding="utf-8")
    named = re.search('inherited-members: "(.*)"', settings)[1].split(", ")
    foreign = set()
    for place in reference.modules():
        name = f"prunefair.{place.replace('/', '.')}"
        for value in vars(importlib.import_module(name)).values():
            if isinstance(value, type) and value.__module__ == name:
                others = (c for c in value.__mro__ if c.__module__[:9] != "prunefair")
                foreign.add(next(others).__name__)
    assert foreign <= {*named}


def test_the_index_of_labels_is_not_built(api):
    assert (api / "py-modindex.html").exists()
    assert not (api / "prf-prf.html").exists()
