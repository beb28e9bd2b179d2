"""What the benchmark asks of the machine: which processor a process runs on, its memory and its time."""

from __future__ import annotations

import os

import psutil


def pin(core: int, pid: int = 0) -> None:
    """Keep a process on one processor, where the system can do that and there are several."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(pid, {core})


def step_back(pid: int) -> None:
    """Let a process go behind those whose time is taken on the same processor, where the system knows of such a thing."""
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, pid, 10)


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """User and system time of these processes so far."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def memory(process: psutil.Process) -> int:
    """Resident bytes."""
    return int(process.memory_info().rss)
