"""Reads the workload guest's report (vmm/guest_report.h) out of a VMM's memory, whichever VMM it
is: through /proc/PID/mem, without the VMM taking part."""
import struct
from dataclasses import dataclass

REPORT_MAGIC = 0x54524F5045524457
REPORT_ABI = 1
STATE_RUNNING, STATE_FAILED = 3, 4
PAGE = 4096
SEARCH_BYTES = 16 << 20  # the guest puts its report behind its own image
MIN_RAM_BYTES = 64 << 20
NR_GAPS = 64
SAMPLE_MS = 0.05  # a running guest samples its TSC more often than that; rarer is a gap

# Offsets in struct guest_report and struct guest_cpu_report.
HEADER = struct.Struct("<QIIQIIQQQQ")  # magic abi nr_cpus size state tsc_source tsc_khz tsc_*
CPU_LAST_TSC, CPU_PAGES_WRITTEN, CPU_NR_ERRORS = 32, 40, 72
CPU_GAP_SEQ = 208
CPU_GAPS = 2560


@dataclass(frozen=True)
class Gap:
    start: int  # TSC
    cycles: int

    @property
    def end(self):
        return self.start + self.cycles


@dataclass
class CpuReport:
    last_tsc: int
    pages_written: int
    nr_errors: int
    gap_seq: int
    gaps: list  # of Gap, oldest first, those still in the ring


class GuestReport:
    """The report in the memory of one VMM process."""

    def __init__(self, pid, ram, offset, header):
        self.memory = open(f"/proc/{pid}/mem", "rb", buffering=0)
        self.offset = offset
        self.address = ram + offset
        fields = HEADER.unpack(header)
        self.nr_cpus = fields[2]
        self.tsc_khz = fields[6]

    def close(self):
        self.memory.close()

    def _read(self, offset, size):
        self.memory.seek(self.address + offset)
        return self.memory.read(size)

    def state(self):
        return HEADER.unpack(self._read(0, HEADER.size))[4]

    def read_tsc_khz(self):
        self.tsc_khz = HEADER.unpack(self._read(0, HEADER.size))[6]

    def cpu(self, index):
        page = self._read(PAGE * (1 + index), PAGE)
        last_tsc, pages = struct.unpack_from("<QQ", page, CPU_LAST_TSC)
        (errors,) = struct.unpack_from("<Q", page, CPU_NR_ERRORS)
        (seq,) = struct.unpack_from("<Q", page, CPU_GAP_SEQ)
        after = struct.unpack("<Q", self._read(PAGE * (1 + index) + CPU_GAP_SEQ, 8))[0]
        oldest = max(0, after - NR_GAPS + 1)
        gaps = [Gap(*struct.unpack_from("<QQ", page, CPU_GAPS + 16 * (n % NR_GAPS)))
                for n in range(oldest, seq)]
        return CpuReport(last_tsc, pages, errors, seq, gaps)

    def cpus(self):
        return [self.cpu(i) for i in range(self.nr_cpus)]

    def ms(self, cycles):
        return cycles / self.tsc_khz


def _ram_mappings(pid):
    with open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            span, access = line.split()[:2]
            start, end = (int(x, 16) for x in span.split("-"))
            if access.startswith("rw") and end - start >= MIN_RAM_BYTES:
                yield start, end


def find_report(pid):
    """The guest's report in process `pid`, or None while there is none."""
    for start, end in _ram_mappings(pid):
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(start)
            head = memory.read(min(SEARCH_BYTES, end - start))
        at = head.find(struct.pack("<Q", REPORT_MAGIC))
        while at >= 0:
            if at % PAGE == 0 and _is_report(head[at:at + HEADER.size]):
                return GuestReport(pid, start, at, head[at:at + HEADER.size])
            at = head.find(struct.pack("<Q", REPORT_MAGIC), at + 1)
    return None


def find_arrived(pid, offset):
    """The report of a guest that has come to process `pid`: as deep in RAM as it was before. Without
    a search, because the guest's ring goes on filling."""
    for start, _ in _ram_mappings(pid):
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(start + offset)
            header = memory.read(HEADER.size)
        if _is_report(header):
            return GuestReport(pid, start, offset, header)
    return None


def _is_report(header):
    magic, abi, nr_cpus, size = HEADER.unpack(header)[:4]
    return magic == REPORT_MAGIC and abi == REPORT_ABI and size == PAGE * (1 + nr_cpus)


class GapLog:
    """Every long gap of each vCPU since it began, although the ring holds the last 64 only."""

    def __init__(self, report):
        self.report = report
        self.first = report.cpus()
        self.gaps = [{} for _ in self.first]
        self.missed = 0
        self.seen_seq = [cpu.gap_seq for cpu in self.first]

    def poll(self):
        for i, cpu in enumerate(self.report.cpus()):
            if cpu.gap_seq - self.seen_seq[i] > NR_GAPS - 1:
                self.missed += cpu.gap_seq - self.seen_seq[i] - (NR_GAPS - 1)
            self.seen_seq[i] = cpu.gap_seq
            for gap in cpu.gaps:
                if gap.end > self.first[i].last_tsc:
                    self.gaps[i][gap.start] = gap

    def longest_ms(self):
        """The longest interruption any vCPU recorded."""
        cycles = [gap.cycles for cpu in self.gaps for gap in cpu.values()]
        return self.report.ms(max(cycles, default=0))

    def count(self):
        return sum(len(cpu) for cpu in self.gaps)


def switchover_ms(source_last, destination):
    """What the guest felt of the switch-over, or None while a vCPU has not recorded it.

    `source_last` is the report of the stopped guest in the source's memory: its last_tsc is the last
    instant each vCPU noted there. It may have been stopped between reading the TSC and noting it, so
    the gap that the guest recorded at the destination and that began at that instant, or at the next
    sample, is the switch-over. The vCPU that felt it longest counts.
    """
    felt = []
    for before, now in zip(source_last, destination.cpus()):
        if now.gap_seq - before.gap_seq >= NR_GAPS:
            raise RuntimeError("the guest's ring of gaps has been overwritten")
        latest = before.last_tsc + SAMPLE_MS * destination.tsc_khz
        spanning = [gap.cycles for gap in now.gaps
                    if gap.start <= latest and before.last_tsc < gap.end]
        if not spanning:
            return None
        felt.append(destination.ms(max(spanning)))
    return max(felt)
