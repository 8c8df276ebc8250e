"""PruneNet and α-fair contextual bandits, derived, implemented and checked.

The chapters of the book *Prune & Fair* are the modules of this package:
`prunefair.pruning` holds Part I, `prunefair.fairness` Part II.
Importing the package loads neither torch nor transformers; `prunefair.load_pruned`,
which reads a pruned model back, loads them when it is first asked for.
"""

__version__ = "0.1.0"


def __dir__():
    return [*globals(), "load_pruned"]


def __getattr__(name: str):
    """Import `load_pruned` when it is asked for, and nothing before."""
    if name == "load_pruned":
        from prunefair.pruning.folders import load_pruned

        return load_pruned
    raise AttributeError(f"module 'prunefair' has no attribute {name!r}")
