"""Where work is done: several processes on this machine, one picture split over them, weights that visit a device.

| file | holds |
|---|---|
| `launch.py` | one command as several processes |
| `processes.py` | who they are, and the few words they exchange |
| `sequence.py` | one picture on several devices |
| `offload.py` | the transformer's weights in host memory, on the device block by block |
"""
