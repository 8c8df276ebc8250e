"""What the README shows runs as it stands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prunefair.fairness.bandit_feedback import ScaleFreeBandit

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
QUICK = """\
import functools, prunefair
from prunefair.pruning import functional_pruning as chapter
quick = {"texts": 2, "choice": "energy", "refit": False}  # seconds in place of minutes
prunefair.prune = functools.partial(prunefair.prune, **quick)
chapter.self_statistics = functools.partial(chapter.self_statistics, length=16)
"""


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_python_block_of_the_readme_runs(block, tmp_path):
    code = QUICK + block if "prune(" in block else block
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert len(BLOCKS) >= 2
    if "policy.save" in block:
        policy = ScaleFreeBandit.load(tmp_path / "policy.npz")
        assert list(policy.learners) == [("ada", "evening")]
        np.testing.assert_allclose(policy.rewards.sum(), 4)


def test_links_of_the_readme_lead_to_files_and_headings():
    root = Path(__file__).resolve().parents[1]
    links = re.findall(r"\]\((?!https?:)([^)#]+)#?([^)]*)\)", README)
    assert len(links) > 20 and sum(bool(place) for _, place in links) >= 4
    for path, place in links:
        assert (root / path).exists(), path
        if place:  # as a notebook's headings are called on GitHub and in Jupyter
            cells = json.loads((root / path).read_text(encoding="utf-8"))["cells"]
            text = "\n".join("".join(c["source"]) for c in cells if "outputs" not in c)
            headings = re.findall(r"^#+ (.+)$", text, re.M)
            assert place in [h.replace(" ", "-") for h in headings], place
