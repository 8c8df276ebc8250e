"""The policies played fast: compiled, and many runs in step.

`compiled.run_fast` plays one policy as `prunefair.fairness.simulation.simulate` does, in
compiled loops (`kernels`); `batch.run_batch` plays many runs of one policy at once, in
numpy alone; `games` and `unweighted` hold games that are too long to record.  The
chapters define what is computed, and tests hold the two against each other.
"""
