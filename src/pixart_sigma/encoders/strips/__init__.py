"""Decoding and encoding pictures of any size exactly, in a bounded amount of memory.

One layer after another runs over strips: full-width bands of rows, with the rows above and below that its
convolution reads. GroupNorm needs the statistics of the whole picture, so each layer gathers those for the next
while it writes, and activations live as a whole in planes, in memory or in temporary files.

| file | holds |
|---|---|
| `layout.py` | an autoencoder → the list of its layers |
| `plan.py` | layers and a limit → strips' heights, what goes to files, the predicted peak |
| `planes.py` | where activations live |
| `statistics.py` | GroupNorm over a whole picture, strip by strip |
| `operations.py` | what a layer computes for a strip |
| `coding.py` | the whole of it: `decode_in_strips`, `encode_in_strips` |
"""
