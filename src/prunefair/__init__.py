"""PruneNet and α-fair contextual bandits, derived, implemented and checked.

The main jobs are a call each: `prune`, `distill`, `recover` and `evaluate` a model,
`play` bandit policies.  The chapters of the book *Prune & Fair* are the modules of this
package: `prunefair.pruning` holds Part I, `prunefair.fairness` Part II.
Importing the package loads neither torch nor transformers; what is offered here is
imported when it is first asked for.  What has its home elsewhere is refused with its
address.
"""

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from prunefair.fairness.bandit_feedback import ScaleFreeBandit
    from prunefair.fairness.baselines import make_policy
    from prunefair.fairness.coupled import coupled
    from prunefair.fairness.full_information import AlphaFairGradient
    from prunefair.fairness.offline_optimum import solve_offline
    from prunefair.fairness.policy import Policy
    from prunefair.fairness.ratings import load_ratings, movielens_stream
    from prunefair.fairness.simulation import RewardStream, simulate
    from prunefair.fairness.utility import alpha_fair_utility, jain_index
    from prunefair.models import load_model
    from prunefair.pipelines.evaluation import evaluate
    from prunefair.pipelines.playing import play
    from prunefair.pipelines.pruning import prune
    from prunefair.pipelines.recovering import distill
    from prunefair.pruning.folders import load_pruned
    from prunefair.pruning.recovery import recover
    from prunefair.pruning.spectrum import ks_distance

_HOMES = {
    "AlphaFairGradient": "fairness.full_information",
    "Policy": "fairness.policy",
    "RewardStream": "fairness.simulation",
    "ScaleFreeBandit": "fairness.bandit_feedback",
    "alpha_fair_utility": "fairness.utility",
    "coupled": "fairness.coupled",
    "distill": "pipelines.recovering",
    "evaluate": "pipelines.evaluation",
    "jain_index": "fairness.utility",
    "ks_distance": "pruning.spectrum",
    "load_model": "models",
    "load_pruned": "pruning.folders",
    "load_ratings": "fairness.ratings",
    "make_policy": "fairness.baselines",
    "movielens_stream": "fairness.ratings",
    "play": "pipelines.playing",
    "prune": "pipelines.pruning",
    "recover": "pruning.recovery",
    "simulate": "fairness.simulation",
    "solve_offline": "fairness.offline_optimum",
}
__all__ = [
    "AlphaFairGradient",
    "Policy",
    "RewardStream",
    "ScaleFreeBandit",
    "alpha_fair_utility",
    "coupled",
    "distill",
    "evaluate",
    "jain_index",
    "ks_distance",
    "load_model",
    "load_pruned",
    "load_ratings",
    "make_policy",
    "movielens_stream",
    "play",
    "prune",
    "recover",
    "simulate",
    "solve_offline",
]


def __dir__():
    return [*globals(), *_HOMES]


def _elsewhere(name: str) -> str | None:
    """The module of the package that defines `name`, a class or a function, or None."""
    defines = re.compile(rf"^(?:class|def) {re.escape(name)}\b", re.M)
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        if not name.startswith("_") and defines.search(path.read_text("utf-8")):
            parts = path.relative_to(root.parent).with_suffix("").parts
            return ".".join(p for p in parts if p != "__init__")
    return None


def __getattr__(name: str):
    """Import what is offered when it is asked for, and nothing before."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if home := _elsewhere(name):  # no AttributeError, whose words `from` would swallow
        raise ImportError(f"{name} is elsewhere; write: from {home} import {name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
