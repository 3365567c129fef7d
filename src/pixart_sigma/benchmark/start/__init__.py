"""How long a first picture takes from nothing: a process that starts, imports, loads and makes it."""
