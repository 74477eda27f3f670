"""The calls of the kernel that are refused in the sandbox, as a filter for seccomp (Linux, Documentation/userspace-api/seccomp_filter.rst).

Refused are new processes and threads, sockets, memory that no limit counts, and parts of the kernel that a program of this sort
has no use for, so that their mistakes cannot be reached. A refused call fails with EPERM.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

# Numbers of calls, from the kernel's tables for each processor. Both tables have the same numbers from 424 on.
SHARED = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "pidfd_open": 434, "clone3": 435, "pidfd_getfd": 438, "mount_setattr": 442, "memfd_secret": 447,
}  # fmt: skip
X86_64 = SHARED | {
    "shmget": 29, "socket": 41, "socketpair": 53, "clone": 56, "fork": 57, "vfork": 58, "semget": 64, "msgget": 68, "ptrace": 101,
    "pivot_root": 155, "mount": 165, "umount2": 166, "mq_open": 240, "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272,
    "perf_event_open": 298, "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
    "memfd_create": 319, "bpf": 321, "userfaultfd": 323,
}  # fmt: skip
AARCH64 = SHARED | {
    "umount2": 39, "mount": 40, "pivot_root": 41, "unshare": 97, "ptrace": 117, "mq_open": 180, "msgget": 186, "semget": 190, "shmget": 194,
    "socket": 198, "socketpair": 199, "add_key": 217, "request_key": 218, "keyctl": 219, "clone": 220, "perf_event_open": 241,
    "open_by_handle_at": 265, "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "memfd_create": 279,
    "bpf": 280, "userfaultfd": 282,
}  # fmt: skip


class Processor(NamedTuple):
    """audit: how the kernel names it (linux/audit.h). calls: name -> number."""

    audit: int
    calls: dict[str, int]


PROCESSORS = {
    "x86_64": Processor(0xC000003E, X86_64),
    "aarch64": Processor(0xC00000B7, AARCH64),
}  # by platform.machine()
OTHER_NUMBERS = 0x40000000  # x86_64: from here on, the same calls have a second number
# Instructions (linux/bpf_common.h) and what a filter returns (linux/seccomp.h).
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | 1  # 1: EPERM
NUMBER, AUDIT = 0, 4  # where they stand in what a filter sees


def refusing(processor: Processor) -> bytes:
    """The filter for a processor: a call by the rules of another processor ends the program."""
    numbers = sorted(processor.calls.values())
    lines = [
        (LOAD, 0, 0, AUDIT),
        (EQUAL, 1, 0, processor.audit),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, len(numbers) + 1, 0, OTHER_NUMBERS),
        *((EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
