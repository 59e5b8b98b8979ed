"""Facts about this machine; what it cannot find out, it leaves out."""

import json
import os
import platform
import shutil

MIB, GIB = 1024**2, 1024**3


def memory():
    """Total and available memory in MiB: Linux tells both, macOS the total."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return {"memory_total_mib": kib["MemTotal"] // 1024, "memory_available_mib": kib["MemAvailable"] // 1024}
    except (OSError, KeyError):
        pass
    try:
        return {"memory_total_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB}
    except (AttributeError, ValueError, OSError):
        return {}


def load():
    try:
        return {"load_1m": round(os.getloadavg()[0], 2)}
    except (AttributeError, OSError):
        return {}


disk = shutil.disk_usage(".")
facts = {
    "system": platform.system(),
    "release": platform.release(),
    "machine": platform.machine(),
    "python": platform.python_version(),
    "cores": os.cpu_count() or 1,
    "disk_total_gib": round(disk.total / GIB, 1),
    "disk_free_gib": round(disk.free / GIB, 1),
}
facts.update(load())
facts.update(memory())
print(json.dumps(facts))
