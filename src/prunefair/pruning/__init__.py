"""Part I: structured pruning of feed-forward layers by a learned policy."""
