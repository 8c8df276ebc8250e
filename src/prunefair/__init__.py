"""PruneNet and α-fair contextual bandits, derived, implemented and checked.

The main jobs are a call each: `prune`, `distill`, `recover` and `evaluate` a model,
`play` bandit policies.  The chapters of the book *Prune & Fair* are the modules of this
package: `prunefair.pruning` holds Part I, `prunefair.fairness` Part II.
Importing the package loads neither torch nor transformers; what is offered here is
imported when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from prunefair.fairness.bandit_feedback import ScaleFreeBandit
    from prunefair.fairness.full_information import AlphaFairGradient
    from prunefair.fairness.offline_optimum import solve_offline
    from prunefair.fairness.utility import alpha_fair_utility
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
    "ScaleFreeBandit": "fairness.bandit_feedback",
    "alpha_fair_utility": "fairness.utility",
    "distill": "pipelines.recovering",
    "evaluate": "pipelines.evaluation",
    "ks_distance": "pruning.spectrum",
    "load_model": "models",
    "load_pruned": "pruning.folders",
    "play": "pipelines.playing",
    "prune": "pipelines.pruning",
    "recover": "pruning.recovery",
    "solve_offline": "fairness.offline_optimum",
}
__all__ = [
    "AlphaFairGradient",
    "ScaleFreeBandit",
    "alpha_fair_utility",
    "distill",
    "evaluate",
    "ks_distance",
    "load_model",
    "load_pruned",
    "play",
    "prune",
    "recover",
    "solve_offline",
]


def __dir__():
    return [*globals(), *_HOMES]


def __getattr__(name: str):
    """Import what is offered when it is asked for, and nothing before."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
