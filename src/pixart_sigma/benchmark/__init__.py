"""Measurements of this package beside what its users would run instead, and beside its own cost model.

Each suite runs all sides in turns, prints medians, and says what it ran. Switches that turn an optimisation off are
here, not in the library.
"""
