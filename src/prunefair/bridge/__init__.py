"""Part III: the bridge, where the objective of one half decides in the other."""
