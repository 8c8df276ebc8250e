"""Settings that every test and every notebook kernel inherits."""

import os

from hypothesis import settings

# One thread a process: two pytest workers fill two cores, and sums are reproducible.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # no ipywidgets

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
