"""What the README shows runs as it stands."""

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
quick = {"texts": 2, "choice": "energy", "refit": False}  # seconds in place of minutes
prunefair.prune = functools.partial(prunefair.prune, **quick)
"""


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_python_block_of_the_readme_runs(block, tmp_path):
    subprocess.run([sys.executable, "-c", QUICK + block], cwd=tmp_path, check=True)
    assert len(BLOCKS) >= 2
    if "policy.save" in block:
        policy = ScaleFreeBandit.load(tmp_path / "policy.npz")
        assert list(policy.learners) == [("ada", "evening")]
        np.testing.assert_allclose(policy.rewards.sum(), 4)
