"""What a container's limit leaves of the memory: control groups, as the Linux kernel tells of them.

A process is in a group, which lies in others; each may have a limit, and the least that any of them leaves counts.
Pages of files that the kernel would drop first (inactive_file) are counted as in use by a group, and as free here.
Knows nothing of what the memory is for. Source: the kernel's documents on cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

Read = Callable[[PurePosixPath], str | None]
"""A file → its text, or None where it cannot be read."""

_GROUPS = PurePosixPath("/proc/self/cgroup")
_MOUNTS = PurePosixPath("/proc/self/mountinfo")


@dataclass(frozen=True)
class _Version:
    """Where a version of the kernel's control groups tells what: files of a group's folder, and a line of one."""

    limit: str
    usage: str
    droppable: str


_VERSIONS = {
    1: _Version("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: _Version("memory.max", "memory.current", "inactive_file"),
}


def read_file(path: PurePosixPath) -> str | None:
    """For `left_in_container`."""
    try:
        return Path(path).read_text("ascii", "replace")
    except OSError:
        return None


def left_in_container(read: Read = read_file) -> int | None:
    """Bytes that this process's groups may still take; None where no limit is known."""
    groups, mounts = read(_GROUPS), read(_MOUNTS)
    if groups is None or mounts is None:
        return None
    left = [_left(folder, version, read) for version, folder in group_folders(groups, mounts)]
    return min((num_bytes for num_bytes in left if num_bytes is not None), default=None)


def group_folders(groups: str, mounts: str) -> list[tuple[int, PurePosixPath]]:
    """The texts of /proc/self/cgroup and /proc/self/mountinfo → (version, folder) of the groups that count memory.

    First the process's own, then those in which it lies, up to where they are mounted.
    """
    own = dict(_own_groups(groups))
    found: list[tuple[int, PurePosixPath]] = []
    for version, root, mount in _group_mounts(mounts):
        if version not in own:
            continue
        try:
            below = own[version].relative_to(root)
        except ValueError:  # mounted from elsewhere, as in a container that was not told its own place
            below = PurePosixPath()
        if ".." in below.parts:
            below = PurePosixPath()
        folder = mount / below
        found += [(version, each) for each in (folder, *folder.parents) if each.is_relative_to(mount)]
    return found


def _own_groups(groups: str) -> Iterator[tuple[int, PurePosixPath]]:
    """cgroups(7): "0::/user.slice" for version 2, "4:memory:/docker/1a2b" for version 1."""
    for line in groups.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield 2, PurePosixPath(path)
        elif "memory" in controllers.split(","):
            yield 1, PurePosixPath(path)


def _group_mounts(mounts: str) -> Iterator[tuple[int, PurePosixPath, PurePosixPath]]:
    """proc(5): "36 35 0:26 ROOT PLACE options - TYPE source options" → (version, root, place)."""
    for line in mounts.splitlines():
        mount, _, kind = line.partition(" - ")
        fields, of_kind = mount.split(" "), kind.split(" ")
        if len(fields) < 5:
            continue
        if of_kind[0] == "cgroup2":
            yield 2, PurePosixPath(fields[3]), PurePosixPath(fields[4])
        elif of_kind[0] == "cgroup" and "memory" in of_kind[-1].split(","):
            yield 1, PurePosixPath(fields[3]), PurePosixPath(fields[4])


def _left(folder: PurePosixPath, version: int, read: Read) -> int | None:
    """Bytes that a group may still take, or None without a limit."""
    names = _VERSIONS[version]
    limit, usage = _number(read(folder / names.limit)), _number(read(folder / names.usage))
    if limit is None or usage is None:
        return None
    return max(0, limit - max(0, usage - _droppable(read(folder / "memory.stat"), names.droppable)))


def _number(text: str | None) -> int | None:
    """A file's number; "max", and whatever else is none, → None."""
    text = (text or "").strip()
    return int(text) if text.isdecimal() else None


def _droppable(stat: str | None, name: str) -> int:
    """The line of memory.stat."""
    for line in (stat or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return _number(value) or 0
    return 0
