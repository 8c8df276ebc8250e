"""The main jobs as one call each: prune a model, evaluate one, play bandit policies.

What the command line, the demonstration and a script all call.  Bad input is one line
that names the argument, its value and the remedy, before the work starts.
"""

from prunefair.pipelines.evaluation import EvaluationReport, evaluate
from prunefair.pipelines.playing import PlayReport, play
from prunefair.pipelines.pruning import FAST, PruneReport, prune

__all__ = [
    "FAST",
    "EvaluationReport",
    "PlayReport",
    "PruneReport",
    "evaluate",
    "play",
    "prune",
]
