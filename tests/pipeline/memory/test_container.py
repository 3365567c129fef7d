"""What the kernel's files say, from texts; no real ones are read."""

from pathlib import PurePosixPath

import pytest

from pixart_sigma.pipeline.memory.container import group_folders, left_in_container

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = (
    "31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "35 31 0:32 /docker/1a2b /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
)
V1_GROUPS = "5:devices:/docker/1a2b\n4:memory:/docker/1a2b\n3:cpu,cpuacct:/docker/1a2b\n"
GIB = 2**30


def left(groups: str, mounts: str, files: dict[str, str]) -> int | None:
    known = files | {"/proc/self/cgroup": groups, "/proc/self/mountinfo": mounts}
    return left_in_container(lambda path: known.get(str(path)))


def folders(groups: str, mounts: str) -> list[tuple[int, str]]:
    return [(version, str(folder)) for version, folder in group_folders(groups, mounts)]


def test_a_container_that_sees_itself_as_the_root() -> None:
    files = {
        "/sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
        "/sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
        "/sys/fs/cgroup/memory.stat": f"anon {GIB}\nactive_file 7\ninactive_file {2 * GIB}\nfile 9\n",
    }
    assert left("0::/\n", V2_MOUNT, files) == 3 * GIB
    del files["/sys/fs/cgroup/memory.stat"]
    assert left("0::/\n", V2_MOUNT, files) == GIB


def test_the_least_of_all_groups_that_a_group_lies_in() -> None:
    own, above = "/sys/fs/cgroup/user.slice/run.scope", "/sys/fs/cgroup/user.slice"
    files = {
        f"{own}/memory.max": "max\n",
        f"{own}/memory.current": "5\n",
        f"{above}/memory.max": "1000\n",
        f"{above}/memory.current": "400\n",
    }
    groups = "0::/user.slice/run.scope\n"
    assert folders(groups, V2_MOUNT) == [(2, own), (2, above), (2, "/sys/fs/cgroup")]
    assert left(groups, V2_MOUNT, files) == 600
    files[f"{own}/memory.max"] = "105"
    assert left(groups, V2_MOUNT, files) == 100


def test_version_1_mounted_at_the_containers_own_place() -> None:
    place = "/sys/fs/cgroup/memory"
    assert folders(V1_GROUPS, V1_MOUNTS) == [(1, place)]
    files = {
        f"{place}/memory.limit_in_bytes": f"{2 * GIB}\n",
        f"{place}/memory.usage_in_bytes": f"{GIB}\n",
        f"{place}/memory.stat": f"inactive_file 3\ntotal_inactive_file {GIB // 2}\n",
    }
    assert left(V1_GROUPS, V1_MOUNTS, files) == 3 * GIB // 2


def test_both_versions_are_looked_at() -> None:
    files = {
        "/sys/fs/cgroup/unified/memory.max": "700",
        "/sys/fs/cgroup/unified/memory.current": "0",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": "900",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": "0",
    }
    mounts = V1_MOUNTS + V2_MOUNT.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    assert left(V1_GROUPS + "0::/\n", mounts, files) == 700


@pytest.mark.parametrize("path", ["/elsewhere/1a2b", "/../../host"])
def test_a_place_that_is_not_mounted_here_counts_as_the_mount(path: str) -> None:
    mounts = V2_MOUNT.replace(" / ", " /docker ", 1) if path.startswith("/e") else V2_MOUNT
    assert folders(f"0::{path}\n", mounts) == [(2, "/sys/fs/cgroup")]


@pytest.mark.parametrize(
    ("limit", "usage", "expected"),
    [("max", "5", None), ("9223372036854771712", "0", 9223372036854771712), ("5", "9", 0), ("", "", None)],
)
def test_no_limit_and_more_used_than_allowed(limit: str, usage: str, expected: int | None) -> None:
    files = {"/sys/fs/cgroup/memory.max": limit, "/sys/fs/cgroup/memory.current": usage}
    assert left("0::/\n", V2_MOUNT, files) == expected


def test_where_there_are_no_groups_nothing_is_known() -> None:
    assert left_in_container(lambda path: None) is None
    assert left("0::/\n", "", {}) is None
    assert left("", V2_MOUNT, {}) is None
    assert left("4:cpu:/\n", "nonsense\n", {}) is None
    assert (
        left_in_container(lambda path: None if path == PurePosixPath("/proc/self/mountinfo") else "") is None
    )
