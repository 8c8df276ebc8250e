"""Set the address of the repository everywhere, as a fork has to.

    python tools/address.py https://github.com/OWNER/NAME

The address stands in `_config.yml`, from which the others follow, in the metadata and
in the first cell of every chapter.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import pairs

ADDRESS = (
    r"https://github\.com/(?!-)[A-Za-z0-9-]{1,39}/(?!\.{1,2}$)[\w.-]{1,100}(?<!\.git)"
)
PLACES = ("*.cff", "*.md", "*.toml", "book/**/*.ipynb", "book/**/*.md", "src/**/*.py")


def set_address(root: Path, url: str) -> list[Path]:
    """Write `url` in the place of the address so far; return the files that changed.

    Raises
    ------
    ValueError
        If `url` is not the address of a repository on GitHub; Colab opens no other.
    """
    if not re.fullmatch(ADDRESS, url, re.ASCII):
        raise ValueError(f"URL is {url[:99]!r}; give https://github.com/OWNER/NAME")
    old = re.compile(re.escape(pairs.repository_url(root)) + r"(?!\.?[\w-])")
    paths = sorted(path for place in PLACES for path in root.glob(place))
    changed = []
    for path in [*paths, root / "_config.yml"]:  # last, so that a run can be repeated
        text = path.read_text(encoding="utf-8")
        if (renewed := old.sub(url, text)) != text:
            path.write_text(renewed, encoding="utf-8")
            changed.append(path)
    return changed


def main(arguments: list[str], root: Path = pairs.ROOT) -> int:
    """Command line; the exit status is 2 if the address is refused."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", metavar="URL")
    try:
        changed = set_address(root, parser.parse_args(arguments).url)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(changed)} files changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
