"""What a run is planned for: `8xH100-80G`, `2x8xH100-80G` (2 machines of 8), `cpu-24G`, or this machine."""

import os
import re
from dataclasses import dataclass

GIB = 2**30
"""What a vendor's G is in a GPU's memory: an H100 of 80G has 79.6 GiB."""

GPU_GIB: dict[str, int] = {
    "T4": 16,
    "V100": 16,
    "P100": 16,
    "A10": 24,
    "A10G": 24,
    "A30": 24,
    "A40": 48,
    "A100": 80,
    "A800": 80,
    "H100": 80,
    "H800": 80,
    "H200": 141,
    "B200": 180,
    "L4": 24,
    "L40": 48,
    "L40S": 48,
    "RTX3060": 12,
    "RTX3090": 24,
    "RTX4060": 8,
    "RTX4070": 12,
    "RTX4080": 16,
    "RTX4090": 24,
    "RTX5090": 32,
    "RTX6000ADA": 48,
    "RTXA6000": 48,
}
"""Memory where a name is sold with one size, or the usual size where it is sold with several."""

FORM = re.compile(
    r"(?:(?:(?P<nodes>\d{1,4})x)?(?P<devices>\d{1,4})x)?(?P<name>[a-z][a-z0-9]*)(?:-(?P<size>\d{1,6})g)?", re.IGNORECASE
)


@dataclass(frozen=True)
class Hardware:
    """Machines that are all alike."""

    name: str
    """Of a GPU, or `cpu`."""

    nodes: int
    devices: int
    """GPUs of one machine; on a CPU the training processes, which share its memory."""

    device_bytes: int
    """Memory of one GPU, or of the machine."""

    @property
    def on_cpu(self) -> bool:
        """There is no GPU."""
        return self.name == "cpu"

    @property
    def processes(self) -> int:
        """One for each GPU; on a CPU as many as were asked for."""
        return self.nodes * self.devices

    @property
    def bytes_for_a_process(self) -> int:
        """Memory that one training process may fill."""
        return self.device_bytes // self.devices if self.on_cpu else self.device_bytes

    def __str__(self) -> str:
        size = f"{round(self.device_bytes / GIB)}G"
        if self.on_cpu:
            return f"cpu-{size}"
        machines = f"{self.nodes}x" if self.nodes > 1 else ""
        return f"{machines}{self.devices}x{self.name}-{size}"


def parse_hardware(text: str, *, processes: int | None) -> Hardware:
    """`[NODESx][GPUSx]NAME[-MEMORYG]`, as in `8xH100-80G`, or `cpu-24G`; ValueError where it is neither.

    processes: how many were asked for with --processes; on GPUs it must be one for each, or left out.
    """
    found = FORM.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not of the form {FORMS}.")
    nodes, devices = int(found["nodes"] or 1), int(found["devices"] or 1)
    name = "cpu" if found["name"].lower() == "cpu" else found["name"].upper()
    if min(nodes, devices) == 0 or (found["size"] is not None and int(found["size"]) == 0):
        raise ValueError(f"{text!r}: a machine with nothing in it can't train; write it as {FORMS}.")
    if name == "cpu":
        if found["devices"]:
            raise ValueError(f"{text!r}: write cpu-24G, and --processes for the number of processes.")
        memory = int(found["size"]) * GIB if found["size"] else machine_bytes()
        return Hardware("cpu", 1, processes or 1, memory)
    size = found["size"] or GPU_GIB.get(name)
    if size is None:
        known = ", ".join(GPU_GIB)
        raise ValueError(
            f"{text!r}: how much memory a {found['name']} has is not known here; write it as "
            f"{devices}x{found['name']}-80G. Known without: {known}, cpu."
        )
    hardware = Hardware(name, nodes, devices, int(size) * GIB)
    if processes not in (None, hardware.processes):
        raise ValueError(
            f"{text!r} has {hardware.processes} GPUs, one process each, and --processes is {processes}; leave "
            "--processes out."
        )
    return hardware


FORMS = "8xH100-80G, 4xA100-40G, 2x8xH100-80G (2 machines of 8 GPUs), 1xRTX4090-24G or cpu-24G"


def this_machine(processes: int | None) -> Hardware:
    """What is here: the GPUs that torch sees, or the CPU. processes: how many were asked for, 1 by default."""
    import torch  # late: a hardware that is written out must be told wrong before torch takes its seconds

    if not torch.cuda.is_available():
        return Hardware("cpu", 1, processes or 1, machine_bytes())
    first = torch.cuda.get_device_properties(0)
    name = re.sub(r"[^A-Za-z0-9]", "", first.name.removeprefix("NVIDIA")) or "GPU"
    return Hardware(name, 1, processes or 1, first.total_memory)


def machine_bytes() -> int:
    """Memory of this machine, or of the container that we run in where that has less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="utf-8") as file:
            limit = file.read().strip()
    except OSError:
        return memory
    return min(memory, int(limit)) if limit.isdecimal() else memory
