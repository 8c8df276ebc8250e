"""One command gives a fork its own address, and nothing keeps the old one."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import address  # noqa: E402
import pairs  # noqa: E402

FORK = "https://github.com/some-one/fork.of_it"
TEXT = {".cff", ".ipynb", ".md", ".py", ".toml", ".txt", ".yml"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of every tracked file."""
    folder = tmp_path_factory.mktemp("fork")
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for name in tracked:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def contents(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_no_file_keeps_the_old_address_and_the_way_back_gives_the_same_bytes(tree):
    before, old = contents(tree), pairs.repository_url(tree)
    assert address.main([FORK], tree) == 0
    after = contents(tree)
    name = old.removeprefix("https://github.com/")
    texts = {p: t.decode() for p, t in after.items() if p.suffix in TEXT}
    assert len(texts) > 100
    assert not [p for p, text in texts.items() if name in text]
    config = yaml.safe_load((tree / "_config.yml").read_text())
    assert config["repository"]["url"] == FORK
    chapters = len(pairs.stems(tree))
    assert sum(FORK in text for text in texts.values()) >= 2 * chapters + 3
    assert pairs.check(tree) == 0
    assert address.main([FORK], tree) == 0
    assert contents(tree) == after
    assert address.main([old], tree) == 0
    assert contents(tree) == before


def test_a_longer_name_is_another_repository(tmp_path):
    (tmp_path / "_config.yml").write_text("repository: {url: https://github.com/a/b}\n")
    others = "https://github.com/a/b-c https://github.com/a/bc https://github.com/a/b.c"
    readme = tmp_path / "README.md"
    readme.write_text(f"{others} https://github.com/a/b/issues https://github.com/a/b.")
    assert address.main([FORK], tmp_path) == 0
    assert readme.read_text() == f"{others} {FORK}/issues {FORK}."


def test_an_interrupted_run_can_be_repeated(tmp_path, monkeypatch):
    for name in ("_config.yml", "CITATION.cff", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    write = Path.write_text

    def full(path, *arguments, **options):
        if path.name == "pyproject.toml":
            raise OSError("No space left on device")
        return write(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        address.main([FORK], tmp_path)
    monkeypatch.undo()
    assert address.main([FORK], tmp_path) == 0
    assert all(FORK in path.read_text() for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "some-one/fork",
        "http://github.com/a/b",
        "https://gitlab.com/a/b",
        "https://github.com/a",
        "https://github.com/a/b/",
        "https://github.com/a/b/tree/main",
        "https://github.com/a/b.git",
        "https://github.com/a/..",
        "https://github.com/-a/b",
        'https://github.com/a/b";rm',
        "https://github.com/a/b\n",
        "https://github.com/a/ü",
        "https://github.com/a/" + "b" * 1000,
    ],
)
def test_what_is_no_address_is_refused_and_nothing_is_written(url, tmp_path, capsys):
    (tmp_path / "_config.yml").write_text("repository: {url: https://github.com/a/b}\n")
    assert address.main([url], tmp_path) == 2
    message = capsys.readouterr().err
    assert re.fullmatch(
        r"error: URL is .*; give https://github.com/OWNER/NAME\n", message
    )
    assert len(message) < 300
    assert "a/b}" in (tmp_path / "_config.yml").read_text()
