"""What a part costs: CPU time and memory of its process."""

import resource
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Meter:
    """CPU time and peak memory of this process and the programs it started, from a moment on."""

    begun: float

    @classmethod
    def start(cls) -> "Meter":
        """Begin to count."""
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of earlier parts; proc(5)
        return cls(_cpu_seconds())

    def read(self, of_program: int = 0) -> tuple[float, int]:
        """Return CPU seconds since the start and the peak of resident memory in bytes, here or of a program it ran."""
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return _cpu_seconds() - self.begun, max(int(status["VmHWM"].split()[0]) * 1024, of_program)


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
