"""One migration of one guest, measured from outside in the same way for either VMM."""
import tempfile
import time
from dataclasses import asdict, dataclass

from versus import guest, host
from versus.process import wait_until
from versus.qmp import QmpError
from versus.units import size_text

ENDED = ("completed", "failed", "cancelled")
POLL_S = 0.05
LONG_GAP_US = 400  # gaps from here on are dated in the ring
AFTERWARDS_S = 0.3  # at the destination, before looking


@dataclass
class Run:
    """What is the same for both sides."""
    kernel: str
    memory: int
    fill: int
    ws: int
    rate: int
    compress: int
    nr_cpus: int
    channels: int
    downtime_limit_ns: int
    settle_s: float
    timeout_s: float
    iperf_s: float
    sparse: bool = False
    label: str = ""

    def append(self):
        return (f"fill={size_text(self.fill)} ws={size_text(self.ws)} rate={self.rate} "
                f"compress={self.compress} cpus={self.nr_cpus} longgap={LONG_GAP_US}")


def migrate_once(make_vmm, run, memory):
    """A dict of what was measured; "failure" tells why a run does not count."""
    memory.take()
    result = {"run": asdict(run)}
    with tempfile.TemporaryDirectory(prefix="versus-") as directory:
        vmm = make_vmm(directory)
        result["vmm"] = vmm.name
        machines = []
        try:
            _migrate(vmm, run, memory, machines, result)
        except (RuntimeError, QmpError, OSError, KeyError) as error:
            result["failure"] = f"{type(error).__name__}: {error}"
            for machine in machines:
                result["failure"] += f" [{machine.process.log_tail()}]"
        finally:
            for machine in machines:
                machine.close()
    return result


def _migrate(vmm, run, memory, machines, result):
    source = vmm.start_source(run)
    machines.append(source)
    report = wait_until(lambda: guest.find_report(source.process.pid), 30, "the guest's report",
                        [source.process])
    wait_until(lambda: _running(report), run.timeout_s, "the guest's fill", [source.process])
    report.read_tsc_khz()
    destination = vmm.start_destination(run)
    machines.append(destination)
    vmm.configure_source(source, run)
    time.sleep(run.settle_s)
    result["pages_per_s_before"] = _rate_over(report, 1.0)

    memory.take()
    before = _cost(source, destination)
    log = guest.GapLog(report)
    lo_bytes = host.loopback_bytes()
    accepted, _ = source.qmp.call_dated("migrate", {"uri": destination.uri})
    status, ended, predicted = _watch(vmm, source, run, log)
    if status != "completed":
        info = source.qmp.call("query-migrate")
        raise RuntimeError(f"migration {status}: {info.get('error-desc', '')}")
    # At once: the guest's ring of gaps goes on filling.
    last = report.cpus()
    arrived = wait_until(lambda: guest.find_arrived(destination.process.pid, report.offset), 5,
                         "the guest's report at the destination", [destination.process], 0.001)
    result["blackout_ms"], result["blackout_is_bound"] = _blackout(last, arrived)
    after = _cost(source, destination)
    result["lo_bytes"] = host.loopback_bytes() - lo_bytes
    result["total_ms"] = (ended - accepted) / 1e6
    resumed, _ = destination.qmp.wait_event("RESUME", timeout=10)
    result["to_running_ms"] = (resumed - accepted) / 1e6
    result["events_gap_ms"] = _events_gap_ms(source, resumed)
    result["predicted_ms"] = predicted
    _what_the_guest_felt(report, arrived, last, log, result)
    info = source.qmp.call("query-migrate")
    result["claims"] = vmm.claims(source, info)
    result["predicted_ms"] = result["claims"].get("predicted_ms", predicted)
    _costs(before, after, destination, result)
    _check(destination, run, result)
    if run.iperf_s:
        result["iperf3_bytes_per_s"] = host.iperf3_bytes_per_s(run.channels, run.iperf_s)
        result["memcpy_bytes_per_s"] = host.memcpy_bytes_per_s()


def _running(report):
    state = report.state()
    if state == guest.STATE_FAILED:
        raise RuntimeError("the workload guest failed; see its serial line")
    return state == guest.STATE_RUNNING


def _rate_over(report, seconds):
    first = report.cpus()
    time.sleep(seconds)
    return _rate(report, first, report.cpus())


def _rate(report, first, last):
    """Pages per second of the guest's own clock."""
    pages = sum(cpu.pages_written for cpu in last) - sum(cpu.pages_written for cpu in first)
    ms = report.ms(last[0].last_tsc - first[0].last_tsc)
    return pages * 1000 / ms if ms else 0


def _watch(vmm, source, run, log):
    """Until the migration has ended: (status, when, the last downtime it predicted)."""
    deadline = time.monotonic() + run.timeout_s
    predicted = None
    while time.monotonic() < deadline:
        try:
            when, data = source.qmp.wait_event("MIGRATION", ENDED, timeout=POLL_S)
            return data["status"], when, predicted
        except QmpError:
            if not source.process.alive() or source.qmp.closed:
                raise
        log.poll()
        predicted = vmm.prediction_ms(source.qmp.call("query-migrate")) or predicted
    raise RuntimeError(f"the migration did not end within {run.timeout_s} s")


def _events_gap_ms(source, resumed):
    """From the source's STOP to the destination's RESUME, as a management tool sees it."""
    stop = source.qmp.find_event("STOP")
    return (resumed - stop[0]) / 1e6 if stop else None


def _what_the_guest_felt(report, arrived, last, log, result):
    log.poll()
    result["pages_per_s_during"] = _rate(report, log.first, last)
    result["precopy_stall_ms"] = log.longest_ms()
    result["precopy_gaps"] = log.count()
    result["gaps_missed"] = log.missed
    time.sleep(AFTERWARDS_S)
    gaps = guest.GapLog(arrived)
    gaps.first = last
    gaps.poll()
    result["stall_after_ms"] = max(
        (arrived.ms(gap.cycles) for cpu, before in zip(gaps.gaps, last) for gap in cpu.values()
         if gap.start > before.last_tsc), default=0)
    arrived.close()
    report.close()


def _blackout(last, arrived):
    """(ms, False), or (the recording threshold, True): shorter than that."""
    deadline = time.monotonic() + 1
    while (felt := guest.switchover_ms(last, arrived)) is None:
        if time.monotonic() > deadline:
            return LONG_GAP_US / 1000, True
        time.sleep(0.002)
    return felt, False


def _cost(source, destination):
    return {"time": time.monotonic(), "host": host.processor_s(), "source": source.process.cpu_s(),
            "destination": destination.process.cpu_s(),
            "vcpus": source.process.thread_times(source.vcpu_tids())}


def _costs(before, after, destination, result):
    """Processor seconds of the VMMs' own threads; the guest's vCPUs apart."""
    vcpu = after["vcpus"][0] - before["vcpus"][0]
    result["cpu"] = {
        "source_s": after["source"] - before["source"] - vcpu,
        "destination_s": after["destination"] - before["destination"],
        "vcpus_ran_s": vcpu,
        "vcpus_waited_s": after["vcpus"][1] - before["vcpus"][1],
        "host_idle_s": after["host"]["idle"] - before["host"]["idle"],
        "host_stolen_s": after["host"]["stolen"] - before["host"]["stolen"],
        "wall_s": after["time"] - before["time"],
    }


def _check(destination, run, result):
    """Have the guest look at every page it owns."""
    match = destination.serial.ask(b"c", r"check: pages=(\d+) errors=(\d+)", run.timeout_s)
    result["check_pages"], result["check_errors"] = int(match[1]), int(match[2])
    if result["check_errors"] or result["check_pages"] * 4096 != run.fill:
        result["failure"] = (f"the guest found {match[2]} bad pages of {match[1]} at the "
                             "destination")
