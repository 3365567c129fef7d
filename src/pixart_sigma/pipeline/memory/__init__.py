"""Pictures within a limit on memory.

| file | holds |
|---|---|
| `limit.py` | "6GB" ↔ bytes |
| `machine.py` | what is free, and what this process takes |
| `container.py` | what the limit of a container leaves of it |
| `needs.py` | a model's folders and a request → what each stage would take, in each of its ways |
| `plan.py` | needs and a limit → the fastest ways that fit |
| `table.py` | a plan, for people |
| `run.py` | a plan → pictures: stages load, run and leave |
| `shortage.py` | what to say when memory or the disk runs out all the same |
"""
