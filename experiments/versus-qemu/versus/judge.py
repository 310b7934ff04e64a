"""Statistics over runs, and the targets they are held to.

A ratio is the median of the ratios of neighbours: run i of one VMM over run i of the other, made one
after the other. The machine's speed may drift over a session; neighbours share it.
"""
from dataclasses import dataclass
from statistics import median

GIB = 1 << 30


def per_second(result, key):
    return result["claims"][key] * 1000 / result["total_ms"]


def per_gib(result, key):
    return result["cpu"][key] * GIB / result["claims"]["wire_bytes"]


def of_iperf3(result):
    limit = result.get("iperf3_bytes_per_s")
    return per_second(result, "wire_bytes") / limit if limit else None


@dataclass(frozen=True)
class Metric:
    name: str
    unit: str
    value: object  # result -> number, or None when it was not measured
    digits: int = 1


METRICS = [
    Metric("total time", "ms", lambda r: r["total_ms"], 0),
    Metric("until the guest runs there", "ms", lambda r: r["to_running_ms"], 0),
    Metric("downtime, predicted", "ms", lambda r: r["predicted_ms"]),
    Metric("downtime, claimed", "ms", lambda r: r["claims"]["downtime_ms"]),
    Metric("downtime, observed by the guest", "ms", lambda r: r["blackout_ms"]),
    Metric("STOP to RESUME, by QMP events", "ms", lambda r: r["events_gap_ms"]),
    Metric("longest stall before the switch-over", "ms", lambda r: r["precopy_stall_ms"]),
    Metric("longest stall just after it", "ms", lambda r: r["stall_after_ms"]),
    Metric("guest's work before", "pages/s", lambda r: r["pages_per_s_before"], 0),
    Metric("guest's work while migrating", "pages/s", lambda r: r["pages_per_s_during"], 0),
    Metric("rounds", "", lambda r: r["claims"]["rounds"], 0),
    Metric("sent, claimed", "MiB", lambda r: r["claims"]["wire_bytes"] / 2**20, 0),
    Metric("sent, over the interface", "MiB", lambda r: r["lo_bytes"] / 2**20, 0),
    Metric("throughput", "Gbit/s", lambda r: per_second(r, "wire_bytes") * 8e-9),
    Metric("throughput / iperf3", "", of_iperf3, 2),
    Metric("processor, source", "s/GiB", lambda r: per_gib(r, "source_s"), 2),
    Metric("processor, destination", "s/GiB", lambda r: per_gib(r, "destination_s"), 2),
    Metric("vCPU waited for a processor", "s", lambda r: r["cpu"]["vcpus_waited_s"], 2),
    Metric("processors idle", "s", lambda r: r["cpu"]["host_idle_s"], 2),
    Metric("processors taken by the hypervisor below", "s",
           lambda r: r["cpu"]["host_stolen_s"], 2),
    Metric("iperf3, same connections", "Gbit/s",
           lambda r: r.get("iperf3_bytes_per_s") and r["iperf3_bytes_per_s"] * 8e-9),
    Metric("memcpy, one thread", "GB/s",
           lambda r: r.get("memcpy_bytes_per_s") and r["memcpy_bytes_per_s"] * 1e-9),
]
TOTAL, BLACKOUT = METRICS[0], METRICS[4]


def runs_of(results, vmm, label):
    """By repetition; failed ones are left out."""
    return {r["repeat"]: r for r in results
            if r["vmm"] == vmm and r["run"]["label"] == label and "failure" not in r}


def spread(runs, metric):
    """(median, minimum, maximum), or None."""
    values = [v for v in map(metric.value, runs.values()) if v is not None]
    return (median(values), min(values), max(values)) if values else None


def ratio(numerators, denominators, metric):
    """The median over neighbours, or None."""
    found = []
    for repeat in numerators.keys() & denominators.keys():
        above, below = metric.value(numerators[repeat]), metric.value(denominators[repeat])
        if above is not None and below:
            found.append(above / below)
    return median(found) if found else None


@dataclass(frozen=True)
class Verdict:
    what: str
    limit: float
    found: float  # None: not measured

    @property
    def word(self):
        if self.found is None:
            return "----"
        return "PASS" if self.found <= self.limit else "MISS"


def _failures(results):
    return sum("failure" in r for r in results if r["vmm"] == "godwit")


def verdicts(scenario, results):
    labels = list(dict.fromkeys(r["run"]["label"] for r in results))
    found = []
    if scenario == "standard":
        for label in labels:
            pair = runs_of(results, "godwit", label), runs_of(results, "qemu", label)
            found.append(Verdict(f"{label}: total time / QEMU's", 0.5, ratio(*pair, TOTAL)))
            found.append(Verdict(f"{label}: guest's blackout / QEMU's", 1.0,
                                 ratio(*pair, BLACKOUT)))
    if scenario == "sparse64" and len(labels) >= 2:
        small, large = (runs_of(results, "godwit", label) for label in (labels[0], labels[-1]))
        found.append(Verdict(f"{labels[-1]} / {labels[0]}: total time", 1.5,
                             ratio(large, small, TOTAL)))
    found.append(Verdict("Godwit runs failed or with a bad page", 0, _failures(results)))
    return found
