"""The rules of the house: layout, imports, environments, addresses and chapters."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import jupytext
import pytest
import yaml
from numpydoc.docscrape import FunctionDoc
from packaging.requirements import Requirement
from packaging.version import Version

from prunefair.data import data_file

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "prunefair"
MODULES = sorted(SOURCE.rglob("*.py"))
CHAPTERS = sorted(path for path in MODULES if path.read_text().startswith("# %%"))
NOTEBOOKS = sorted(
    path
    for path in (ROOT / "book").rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)


def relative(path):
    return str(path.relative_to(ROOT))


def dotted(path):
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def toc_files():
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    return [chapter["file"] for part in parts for chapter in part["chapters"]]


def test_every_chapter_of_the_contents_is_a_pair_with_tests_and_none_is_left_out():
    files = toc_files()
    names = [f.removeprefix("book/") for f in files if (ROOT / f"{f}.ipynb").is_file()]
    assert len(names) >= 10
    for name in names:
        assert (SOURCE / f"{name}.py") in CHAPTERS
        path = ROOT / "tests" / name
        assert path.with_name(f"test_{path.name}.py").is_file()
    assert len(names) == len(CHAPTERS) == len(NOTEBOOKS)


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize(
    ("part", "other"), [("pruning", "fairness"), ("fairness", "pruning")]
)
def test_neither_part_imports_the_other(part, other):
    paths = sorted((SOURCE / part).glob("*.py"))
    assert len(paths) > 5
    apart = tuple(f"prunefair.{name}" for name in (other, "bridge"))
    for path in paths:
        assert not [n for n in imported(path) if n.startswith(apart)]


def asked_names(code, nodes=ast.walk):
    """Dotted names that `code` asks for, each module and what is taken from it."""
    for node in nodes(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def asked_by(path):
    """What a chapter asks for in all its cells, another module when it is imported."""
    if path not in CHAPTERS:
        return {*asked_names(path.read_text(), lambda tree: tree.body)}
    chapter = ROOT / "book" / path.relative_to(SOURCE).with_suffix(".ipynb")
    cells = json.loads(chapter.read_text())["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    return {n for c in code if "google.colab" not in c for n in asked_names(c)}


def reached_chapters(path):
    """Chapters that a chapter imports, itself or through modules that are none."""
    names = {dotted(module): module for module in MODULES}
    found, seen, left = set(), set(), {path}
    while left:
        seen |= left
        asked = {names[n] for one in left for n in asked_by(one) if n in names} - seen
        found |= asked & {*CHAPTERS}
        left = asked - found
    return found


def later_imports(order):
    """Pairs of a chapter and a later one of `order` that it imports."""
    pairs = ((path, other) for path in order for other in reached_chapters(path))
    return {
        (relative(path), relative(other))
        for path, other in pairs
        if order.index(other) > order.index(path)
    }


def test_no_chapter_imports_from_a_later_one():
    names = [f.removeprefix("book/") for f in toc_files() if f.count("/") == 2]
    order = [SOURCE / f"{name}.py" for name in names]
    assert later_imports(order) == set()
    perplexity, surgery, records, zero_shot = (
        SOURCE / "pruning" / f"{stem}.py"
        for stem in ("perplexity", "surgery", "records", "zero_shot")
    )
    assert "surgery" not in {n.split(".")[-1] for n in imported(perplexity)}
    backwards = later_imports(order[::-1])  # what only a demonstration asks for, too
    assert (relative(perplexity), relative(surgery)) in backwards
    assert zero_shot in reached_chapters(records) and records not in CHAPTERS


def chapter_faults(text, stem, following, known):
    """What is wrong with the title and the end of a chapter, in words."""
    title = re.search(r"^# ([^%].*)$", text, re.M)[1]
    if re.sub(r"\W|_", "", title.split(":")[0]).lower() != stem.replace("_", ""):
        yield "the title does not begin with the stem"
    if "$" in title:
        yield "the title holds mathematics"
    end = text[text.find("## What you can do now") :]
    if "# Next: [" not in end or f"]({following}.ipynb)" not in end:
        yield "the next step is missing" if following else None
    for name in re.findall(r"^# - .*", end, re.M):
        for word in re.findall(r"`([A-Za-z]\w+)`", name):
            if word not in known:
                yield f"{word} is not defined"


@pytest.mark.parametrize("part", ["fairness"])
def test_a_chapter_is_titled_by_its_stem_and_ends_with_what_one_can_do(part):
    known = {name for path in MODULES for name in defined_names(path)}
    stems = [f.split("/")[2] for f in toc_files() if f.startswith(f"book/{part}/")]
    for stem, following in zip(stems, [*stems[1:], None]):
        text = (SOURCE / part / f"{stem}.py").read_text()
        faults = [*filter(None, chapter_faults(text, stem, following, known))]
        assert faults == [], (stem, faults)


def defined_names(path):
    """Functions, classes, their methods and constants that a module defines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (t.id for t in targets if isinstance(t, ast.Name))
            yield from (t.attr for t in targets if isinstance(t, ast.Attribute))


def test_a_wrong_title_and_a_stale_name_are_found():
    text = "# Other: of $c$\n# ## What you can do now\n# - Do it: `gone`, `here`.\n"
    faults = list(chapter_faults(text, "two_words", "three", {"here"}))
    assert len(faults) == 4 and "gone is not defined" in faults
    right = "# Two words: x\n# ## What you can do now\n# Next: [Three](three.ipynb)"
    assert list(chapter_faults(right, "two_words", "three", set())) == []


def test_no_public_name_is_defined_twice():
    seen = {}
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                if node.name.startswith("_") or node.name == "main":
                    continue
                assert node.name not in seen, (node.name, seen[node.name], path)
                seen[node.name] = path


IMPORT = """
import json, os, sys

def told(name):
    ends = os.pipe()
    if not os.fork():
        for stream in (1, 2):
            os.dup2(ends[1], stream)
        try:
            alone(name)
        except Exception as error:
            print(repr(error))
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.close(ends[1])
    with open(ends[0]) as pipe:
        found = pipe.read()
    os.wait()
    return found

def alone(name):
    opened = []
    def audit(event, arguments):
        if event == "open" and isinstance(arguments[0], str):
            opened.append(arguments[0])
        if event in ("subprocess.Popen", "socket.connect", "os.fork"):
            opened.append(event)
    sys.addaudithook(audit)
    __import__(name)
    bad = [p for p in opened if not p.endswith((".py", ".pyc", ".so", ".pyi"))]
    large = {"torch", "transformers", "cvxpy", "matplotlib"}
    print(bad, sorted(large & set(sys.modules)))

for name in sys.argv[1].split(","):
    __import__(name)
print(json.dumps({name: told(name) for name in sys.argv[2:]}))
"""


def is_heavy(path):
    return path.parent.name in ("bridge", "pruning") and path.stem != "__init__"


@pytest.fixture(scope="module")
def when_imported():
    """What each module says, opens and loads, each in a process that has none."""
    found, loaded = {}, "numpy,scipy,numba,tqdm,typer,safetensors"
    for heavy in (True, False):
        names = [dotted(path) for path in MODULES if is_heavy(path) == heavy]
        result = subprocess.run(
            [sys.executable, "-c", IMPORT, "torch," * heavy + loaded, *names],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        )
        found |= json.loads(result.stdout)
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_importing_a_module_reads_no_file_prints_nothing_and_stays_light(
    path, when_imported
):
    assert when_imported[dotted(path)] == (
        "[] ['torch']\n" if is_heavy(path) else "[] []\n"
    )


def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [line for group in extras.values() for line in group]
    return [Requirement(line) for line in project["dependencies"] + lines]


def pinned(path):
    lines = path.read_text().splitlines()
    pins = (line.split("==") for line in lines if "==" in line)
    return {name.lower().replace("_", "-"): pin for name, pin in pins}


def test_conda_and_pip_environments_are_in_step():
    names, pins = {r.name for r in requirements()}, pinned(ROOT / "constraints.txt")
    names -= {"llama-cpp-python"}  # is compiled on installation, for one test file only
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    *packages, pip = conda
    have = dict(re.split("=+", line) for line in packages + pip["pip"] if "=" in line)
    del have["python"]
    have["torch"] = have.pop("pytorch")
    have = {name.replace("_", "-"): pin for name, pin in have.items()}
    assert have == {name: pins[name] for name in names}


def test_the_oldest_versions_that_are_run_are_the_lower_bounds():
    oldest = pinned(ROOT / "constraints-oldest.txt")
    assert len(requirements()) > 30
    for requirement in requirements():
        bounds = [s for s in requirement.specifier if s.operator in (">=", "==")]
        assert len(bounds) == 1, f"{requirement} has not one lower bound"
        assert Version(oldest.get(requirement.name, "0")) == Version(bounds[0].version)


def test_one_address_of_the_repository_everywhere():
    url = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Repository"] == citation["repository-code"] == url
    owner, name = url.removeprefix("https://github.com/").split("/")
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    pattern = re.compile(r"(git clone .*)?github\.com[/:]([\w-]+)/([\w.-]*[\w-])")
    found = set()
    for file in tracked:
        if not file.endswith((".png", "test_address.py")) and (ROOT / file).is_file():
            text = (ROOT / file).read_text(encoding="utf-8")
            found |= {
                (its_owner, its_name)
                for cloned, its_owner, its_name in pattern.findall(text)
                if cloned or its_owner == owner or its_name == name
            }
    assert found == {(owner, name)}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_chapter_cells_are_short_and_stored_whole(path):
    for number, cell in enumerate(jupytext.read(path).cells):
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.get("tags", [])
        lines = code_lines(cell.source) if "%pip" not in cell.source else []
        cap = 12 if "active-ipynb" in tags else 25
        assert len(lines) <= cap, (number, len(lines), cell.source)
        assert cell.execution_count, f"cell {number} was never executed"
        for output in cell.outputs:
            assert output.output_type != "error" or "raises-exception" in tags


def code_lines(source):
    """Lines of `source` that hold code: no signatures, comments or docstrings."""
    skipped = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            skipped |= set(range(node.lineno + 1, node.body[0].lineno))
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            text = node.body[0]
            skipped |= set(range(text.lineno, text.end_lineno + 1))
    return [
        line
        for number, line in enumerate(source.splitlines(), 1)
        if number not in skipped and line.strip() and not line.strip().startswith("#")
    ]


def public_functions():
    for path in MODULES:
        if path.stem.startswith("_"):
            continue
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            if not any("app.command" in ast.unparse(d) for d in node.decorator_list):
                yield pytest.param(node, id=f"{dotted(path)}.{node.name}")


@pytest.mark.parametrize("node", list(public_functions()))
def test_public_functions_say_what_they_take_and_return(node):
    text = ast.get_docstring(node)
    assert text, "no docstring"
    documented = FunctionDoc(None, doc=text)
    if node.name.startswith("plot_") and "\n" not in text:
        return  # what it draws; the axes come first, the data after them
    if "Parameters" not in text:  # a one-line docstring serves at most two arguments
        assert len(node.args.args + node.args.kwonlyargs) <= 2, "Parameters missing"
        return
    names = {
        name.strip().lstrip("*")
        for parameter in documented["Parameters"]
        for name in parameter.name.split(",")
    }
    arguments = node.args.args + node.args.kwonlyargs
    assert names >= {argument.arg for argument in arguments}


def test_long_results_say_where_they_come_from():
    for path in (ROOT / "book" / "results").glob("*.json"):
        table = json.loads(path.read_text())
        assert {"configuration", "versions", "device"} <= set(table), path


def test_the_tree_names_no_folder_of_a_machine():
    pattern = r"(^|[\"' (])/(home|root|tmp|work|Users)/\w"
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(tracked) > 50
    for name in tracked:
        path = ROOT / name
        if path.is_file() and path != Path(__file__):
            text = path.read_text(encoding="utf-8")
            assert not re.search(pattern, text, re.MULTILINE), name


def prose(path):
    """The Markdown cells of a chapter, or the whole of another file."""
    if path not in CHAPTERS:
        return path.read_text(encoding="utf-8")
    cells = jupytext.read(path).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def words(path):
    """What `prose` says, without where its links lead."""
    return re.sub(r"(\[\([^)]*\))?\]\([^)]*\)", "]", prose(path)).lower()


def test_whoever_prints_a_perplexity_says_that_the_text_is_tokenised():
    perplexity = SOURCE / "pruning" / "perplexity.py"
    others = [ROOT / "README.md", ROOT / "tools" / "demo.py", SOURCE / "cli.py"]
    others += [ROOT / "book" / name for name in ("intro.md", "claims.md")]
    chapters = [path for path in CHAPTERS if "perplexit" in words(path)]
    assert perplexity in chapters and len(chapters) >= 7
    for path in [*chapters, *others]:
        assert "perplexit" in words(path)
        assert "tokenised" in prose(path), path
        link = "perplexity.ipynb#the-tokenised-text)"
        assert path in (perplexity, *others) or link in prose(path), path
    examples = re.findall(r"`([^`]*@[^`]*)`", prose(perplexity))
    assert len(examples) == 2
    for name in ("wikitext2/test.txt", "wikitext2/valid.txt"):
        text = data_file(name).read_text(encoding="utf-8")
        for mark in ("<unk>", " @-@ ", " @,@ ", " @.@ "):
            assert text.count(mark) > 100
        assert name.endswith("valid.txt") or all(e in text for e in examples)


def steps():
    """Every chapter with what comes after it in the contents."""
    files = [f for f in toc_files() if f.count("/") == 2]
    return list(zip(files, [*files[1:], "book/claims"]))


def markdown(chapter):
    """The Markdown cells of a chapter, without fenced code."""
    cells = json.loads(chapter.read_text())["cells"]
    text = "\n\n".join("".join(c["source"]) for c in cells if "outputs" not in c)
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S).rstrip()


def title_faults(text, stem):
    """What the title of a chapter lacks."""
    name, colon, promise = text.split("\n")[0].removeprefix("# ").partition(": ")
    if not re.sub(r"[\s-]", "", name).lower().startswith(stem.replace("_", "")):
        yield "its stem"
    if not promise:
        yield "what it is about"
    if "$" in name + promise:
        yield "plain words"


@pytest.mark.parametrize(("file", "following"), steps())
def test_a_chapter_is_titled_by_its_stem_and_ends_with_the_next_step(file, following):
    text = markdown(ROOT / f"{file}.ipynb")
    assert not [*title_faults(text, file.split("/")[-1])]
    assert re.findall(r"^#+ .+$", text, re.M)[-1] == "## What you can do now"
    found = re.findall(r"\]\(([\w/.]+)\)", text.split("\n")[-1])
    targets = [os.path.normpath((ROOT / file).parent / link) for link in found]
    wanted = {str(ROOT / following) + suffix for suffix in (".ipynb", ".md")}
    assert wanted & {*targets}, targets


@pytest.mark.parametrize(
    ("title", "fault"),
    [
        ("What slicing does to a spectrum", ["its stem", "what it is about"]),
        ("Row policy", ["what it is about"]),
        ("Row policy: the $k$ best", ["plain words"]),
        ("Row-policy: the best", []),
    ],
)
def test_a_title_without_its_stem_or_with_mathematics_is_told(title, fault):
    assert [*title_faults(f"# {title}\n\nText.", "row_policy")] == fault


def links(path):
    """Pages that a page of the book links to, each with the line that does."""
    for line in path.read_text(encoding="utf-8").split("\n"):
        for target in re.findall(r"\]\(([\w/.]+\.(?:md|ipynb))[^)]*\)", line):
            yield ROOT / os.path.normpath(path.parent / target), line


def test_the_first_page_says_in_order_what_every_chapter_answers():
    found = links(ROOT / "book" / "intro.md")
    rows = [
        path for path, line in found if re.fullmatch(r"\| [^|]+ \| [^|]+\? \|", line)
    ]
    assert rows == [ROOT / f"{file}.ipynb" for file, _ in steps()]


@pytest.mark.parametrize(
    ("wish", "start", "room"),
    [
        ("prune my model", "start_pruning", "pruning/functional_pruning"),
        ("see why $c_\\alpha$", "start_fairness", "fairness/limits"),
    ],
)
def test_a_newcomer_reaches_the_right_room_in_two_clicks(wish, start, room):
    first = {path for path, line in links(ROOT / "book" / "intro.md") if wish in line}
    page, room = ROOT / "book" / f"{start}.md", ROOT / "book" / f"{room}.ipynb"
    assert page in first
    assert room in {path for path, line in links(page) if wish in line}
