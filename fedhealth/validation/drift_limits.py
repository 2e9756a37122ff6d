"""How far a site may be from the others before it is warned, and before it must not take part.

Chosen on synthetic consortia of the seeds 1 to 5; `benchmarks/planted_faults.py` scores them on others.
"""

MIN_PEOPLE = 30
"""Fewer people at the site, or bins of fewer in the reference, are not compared."""
SHIFT = 1.0
"""Distance of the medians, in standard deviations of the others (their quartile range / 1.349)."""
DISTANCE = 1.0
"""Wasserstein distance between the quantiles of 20% and 80%, in the same deviations."""
SHARES = 0.25
"""Total variation distance of shares: the share of the site's people that would have to move."""
GAP = 0.15
"""Share of the others in classes, such as quarters, that are all but empty at the site."""
EMPTY = 0.1
"""A class with less than this part of the people expected is all but empty ..."""
EXPECTED = 10
"""... if so many people were expected."""
NOISE = 0.5
"""Added to a limit for chance: so many times the root of bins per count."""
GROSS_RATIO = 3.0
"""A median of values that is more than so many times the others', or less than 1 / so many: a wrong unit."""
