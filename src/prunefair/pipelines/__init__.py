"""The main jobs as one call each: prune, recover and evaluate a model, play policies.

What the command line, the demonstration and a script all call.  Bad input is one line
that names the argument, its value and the remedy, before the work starts.
"""

from prunefair.pipelines.evaluation import EvaluationReport, evaluate
from prunefair.pipelines.playing import PlayReport, play
from prunefair.pipelines.pruning import FAST, PruneReport, prune
from prunefair.pipelines.recovering import RecoveryReport, distill, fine_tune

__all__ = [
    "FAST",
    "EvaluationReport",
    "PlayReport",
    "PruneReport",
    "RecoveryReport",
    "distill",
    "evaluate",
    "fine_tune",
    "play",
    "prune",
]
