"""What a text that will be shown to others must not say: where files lie on one machine, and so whose it is."""

from __future__ import annotations

import re

# A path is absolute, of a home folder, of Windows, or a file's address. In quotes it may hold blanks. What stands
# before it must not make it a part of something else: of a relative path, of an address, of "and/or".
_START = r"(?:file://)?(?:~[\w.-]*/|/|[A-Za-z]:[\\/])"
_QUOTED = re.compile(rf"""(["']){_START}((?:(?!\1).)*)\1""")
_BARE = re.compile(rf"""(?<![\w.~:/\\<…-])(?:{_START})[^\s"'`,;:()<>\[\]]+""")


def without_paths(text: str) -> str:
    """Each absolute path becomes "…/" and its last part, the name of a file or folder."""
    text = _QUOTED.sub(lambda found: f"{found[1]}{_last_part(found[2])}{found[1]}", text)
    return _BARE.sub(lambda found: _last_part(found[0]), text)


def _last_part(path: str) -> str:
    return "…/" + re.split(r"[\\/]+", path.rstrip("\\/"))[-1]
