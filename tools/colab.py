"""Run every chapter as Colab does: its packages, the first cell, then all the others.

    python tools/colab.py [--python PYTHON3.13] [STEM ...]

builds `.venv-colab` with the versions that `tools/colab-packages.txt` lists, of the
packages that the project touches.  Then each chapter is executed there from its first
cell on, which clones what HEAD of this checkout holds, in place of the address, and
installs it.  `google.colab` is simulated, `/content` is a temporary folder, and after a
chapter the environment is as it was.  The result goes to `book/results/colab.json`;
with names of chapters only these are run, and a stored one is renewed only by the same
versions on the same machine.  Data are read from the folder `PRUNEFAIR_DATA`, or
downloaded.  Status 1: a chapter failed, or torch, numpy or transformers was replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import nbformat
import pairs
from nbclient import NotebookClient

from prunefair.data import data_folder

sys.path.insert(0, str(pairs.ROOT / "benchmarks"))

from storing import read_table, write_table

ROOT = pairs.ROOT
PACKAGES = ROOT / "tools" / "colab-packages.txt"
RESULT = ROOT / "book" / "results" / "colab.json"
ENVIRONMENT = ROOT / ".venv-colab"
EXTRAS = ("gguf", "recover")  # those that a first cell may ask for
KEPT = {"numpy", "torch", "transformers"}  # no first cell may replace these
BESIDE = ("ipykernel", "ipython", "torchao")  # met by a chapter, not asked for
SHOWN = ("altair",)  # there for the chapters that show a chart, no part of the records
WITH_TORCH = re.compile(r"nvidia-|cuda-|triton$")  # they come with the build of torch
SIMULATED = """\
import importlib.util, sys
from importlib.machinery import ModuleSpec
spec = ModuleSpec("google.colab", None)
sys.modules["google.colab"] = importlib.util.module_from_spec(spec)"""
USED = """\
import resource
usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_maxrss, usage.ru_utime + usage.ru_stime)"""


def normal(name: str) -> str:
    """A package's name in one spelling."""
    return re.sub(r"[-_.]+", "-", name).lower()


def listed() -> dict[str, str]:
    """Version of every package on Colab, without the mark of its build."""
    lines = PACKAGES.read_text(encoding="utf-8").splitlines()
    pins = (line.split("==") for line in lines if "==" in line)
    return {normal(name): version.split("+")[0] for name, version in pins}


def requirements() -> list[str]:
    """What a first cell may make pip look for."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    return project["dependencies"] + [r for name in EXTRAS for r in extras[name]]


def touched() -> dict[str, str]:
    """Version on Colab of every package that the project touches."""
    names = [normal(re.match(r"[\w.-]+", line).group()) for line in requirements()]
    colab = listed()
    return {name: colab[name] for name in sorted([*names, *BESIDE]) if name in colab}


def pip(*arguments: str) -> str:
    """Run pip in the environment; return what it prints."""
    command = [ENVIRONMENT / "bin" / "python", "-m", "pip", *arguments]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return result.stdout


def installed() -> dict[str, str]:
    """Version of every package in the environment."""
    found = json.loads(pip("list", "--format=json"))
    return {normal(p["name"]): p["version"].split("+")[0] for p in found}


def build(python: str) -> None:
    """Create the environment, unless it is there."""
    want = touched() | {name: listed()[name] for name in SHOWN}
    if not (ENVIRONMENT / "bin" / "python").exists():
        subprocess.run([python, "-m", "venv", ENVIRONMENT], check=True)
    have = installed()
    if any(have.get(name) != version for name, version in want.items()):
        lines = [f"{n}=={v}" for n, v in listed().items() if not WITH_TORCH.match(n)]
        constraints = ENVIRONMENT / "constraints.txt"
        constraints.write_text("\n".join(lines) + "\n", encoding="utf-8")
        pins = [f"{name}=={version}" for name, version in want.items()]
        pip("install", "--quiet", "--constraint", str(constraints), *pins)


def prepared(stem: str, content: Path):
    """The chapter between a cell that simulates Colab and one on what it used."""
    notebook = nbformat.read(pairs.notebook_path(ROOT, stem), as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source = first.source.replace("/content", str(content))
    notebook.cells.insert(0, nbformat.v4.new_code_cell(SIMULATED))
    notebook.cells.append(nbformat.v4.new_code_cell(USED))
    return notebook


def run(stem: str, folder: Path) -> dict:
    """Execute one chapter, and put the environment back."""
    before, start, record = installed(), time.perf_counter(), {"passed": True}
    content = folder / "content" / stem.replace("/", "-")
    content.mkdir(parents=True)
    notebook = prepared(stem, content)
    try:
        NotebookClient(
            notebook,
            timeout=600,
            kernel_name="colab",
            resources={"metadata": {"path": str(content)}},
        ).execute()
        peak, processor = notebook.cells[-1].outputs[0].text.split()
        record["peak_mib"] = round(int(peak) / 1024)
        record["processor_seconds"] = round(float(processor))
    except Exception as error:  # whatever a chapter or its kernel dies of
        record |= {"passed": False, "error": _last_line(str(error) or repr(error))}
    finally:
        record["seconds"] = round(time.perf_counter() - start)
        after = installed()
        record["added"] = {n: after[n] for n in sorted(after.keys() - before.keys())}
        record["replaced"] = {
            name: f"{version} by {after.get(name)}"
            for name, version in before.items()
            if after.get(name) != version
        }
        if record["added"]:
            pip("uninstall", "--quiet", "--yes", *record["added"])
        for name in record["replaced"]:
            pip("install", "--quiet", "--no-deps", f"{name}=={before[name]}")
    return record


def _last_line(text: str) -> str:
    """The line of a traceback that failed, and its message, without colours."""
    lines = re.sub("\x1b\\[[0-9;]*m", "", text).strip().splitlines()
    marked = [line.strip() for line in lines if "-->" in line]
    return " | ".join([*marked[-1:], lines[-1]])[:300]


def prepare_kernel(folder: Path) -> None:
    """Let kernels start in the environment, in a world like Colab's."""
    spec = folder / "kernels" / "colab"
    spec.mkdir(parents=True)
    python = str(ENVIRONMENT / "bin" / "python")
    argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": argv, "display_name": "Colab", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
    os.environ.pop("PYTHONPATH", None)
    os.environ |= {
        "JUPYTER_PATH": str(folder),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else the kernel warns of its debugger
        "PRUNEFAIR_CACHE": str(folder / "cache"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{ROOT.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": pairs.repository_url(ROOT),
    }
    if data := data_folder():
        os.environ["PRUNEFAIR_DATA"] = str(data.resolve())


def main(arguments: list[str]) -> int:
    """Command line; the exit status is 1 if a chapter does not stand."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default="python3.13")
    parser.add_argument("stem", nargs="*")
    options = parser.parse_args(arguments)
    stems = pairs.stems(ROOT)
    if unknown := set(options.stem) - set(stems):
        parser.error(f"STEM is {min(unknown)!r}; give one of {', '.join(stems)}")
    build(options.python)
    ask = [ENVIRONMENT / "bin" / "python", "--version"]
    version = subprocess.run(ask, check=True, capture_output=True, text=True).stdout
    head = {
        "configuration": {
            "packages": PACKAGES.read_text(encoding="utf-8").splitlines()[0].strip("# ")
        },
        "versions": {"python": version.split()[1]} | touched(),
        "device": f"cpu, {os.cpu_count()} cores, {platform.machine()}",
    }
    failed = []
    with tempfile.TemporaryDirectory(prefix="colab-") as folder:
        prepare_kernel(Path(folder))
        for stem in options.stem or stems:
            record = run(stem, Path(folder))
            stored = read_table(RESULT)
            same = {key: stored.get(key) for key in head} == head
            chapters = stored["chapters"] if same else {}
            kept = {s: chapters[s] for s in stems if s in chapters} | {stem: record}
            write_table(RESULT, head | {"chapters": dict(sorted(kept.items()))})
            print(stem, record, flush=True)
            if not record["passed"] or KEPT & set(record["replaced"]):
                failed.append(stem)
    print(f"{len(failed)} failed", *failed)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
