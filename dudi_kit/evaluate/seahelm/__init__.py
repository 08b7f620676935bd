"""SEA-HELM v1.2.1's parsing, metrics and aggregation, without SEA-HELM: pure functions from texts to numbers.

Rules and constants are read from SEA-HELM's own code (github.com/aisingapore/SEA-HELM, MIT); the code here is ours.
Where the two are known to differ, the function says so. `metrics.score` is the way in; `aggregate` joins what it
returns; `weak` has what a floor at 0 hides.
"""
