"""The paper's tables once more, with the pocket world: trainings, measurements, and whether an ordering holds.

`reproduce` in `run.py` is the entry. Stands on training and evaluation, which know nothing of it.
"""
