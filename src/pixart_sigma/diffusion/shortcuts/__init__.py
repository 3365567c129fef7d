"""Sampling with less work, for another picture than the exact one.

| file | holds |
|---|---|
| `plan.py` | what is computed at each step; without torch |
| `reuse.py` | outputs of a block's sublayers, kept and used again; put onto the transformer from outside |

Guidance at some of the steps only is `sampling.py`'s own.
"""
