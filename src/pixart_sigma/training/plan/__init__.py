"""What a training run will take: operations, memory, time; computed before anything is trained.

Nothing here runs a model. Figures of machines are published ones, but for the CPU's, which are measured where it runs.
"""
