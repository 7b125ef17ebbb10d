"""Where a run's weights are, and how they get to a rank.

opening.py finds them, cache.py keeps on a node what came from storage, cutting.py cuts them once for N ranks.
"""
