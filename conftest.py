"""Settings that every test and every notebook kernel inherits."""

import functools
import os

import pytest
from hypothesis import settings

# One thread a process: two pytest workers fill two cores, and sums are reproducible.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # no ipywidgets

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture
def short_texts(monkeypatch):
    """Pruning reads texts of 32 tokens in the place of 128: the same steps, sooner."""
    from prunefair.pipelines import sweeping
    from prunefair.pruning import functional_pruning

    short = functools.partial(functional_pruning.self_statistics, length=32)
    monkeypatch.setattr(functional_pruning, "self_statistics", short)
    for module in (functional_pruning, sweeping):
        monkeypatch.setattr(module, "LENGTH", 32)
