"""PruneNet and α-fair contextual bandits, derived, implemented and checked.

The chapters of the book *Prune & Fair* are the modules of this package:
`prunefair.pruning` holds Part I, `prunefair.fairness` Part II.
Importing the package loads neither torch nor transformers.
"""

__version__ = "0.1.0"
