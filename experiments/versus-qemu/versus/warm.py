"""Memory that costs the same to touch whoever takes it, and whenever.

Where this host is itself a guest, free memory may have been given back to the hypervisor below
(virtio-balloon's free page reporting does so within seconds). Touching it again then costs ten times as
much as touching memory that is still there. Which side pays for that is chance, and it can be most of a
migration. So a child process holds all of this host's memory, in huge pages as both VMMs use them, and
keeps just a little free: what others take it replaces, and what they leave it takes again, before the
next run. Memory nobody but the hypervisor below has is then never used.
"""
import mmap
import os
import subprocess
import sys
import time

if __name__ != "__main__":
    from versus.process import die_with_parent

MIB = 1 << 20
FREE_BYTES = 1024 * MIB  # kept for whoever wants memory next
LEAST_BYTES = 320 * MIB  # free while taking; less would make the kernel reclaim what is in use
CHUNK_BYTES = 32 * MIB
POLL_S = 0.002
MADV_POPULATE_WRITE = 23


def host_is_a_guest():
    with open("/proc/cpuinfo") as f:
        return any(line.startswith("flags") and " hypervisor" in line for line in f)


def free_bytes():
    with open("/proc/meminfo") as f:
        for line in f:
            if line.startswith("MemFree:"):
                return int(line.split()[1]) << 10
    raise RuntimeError("/proc/meminfo has no MemFree")


class WarmMemory:
    """Takes, on hosts that are guests, all memory until the end of the with-statement."""

    def __enter__(self):
        self.child = None
        if host_is_a_guest():
            self.child = subprocess.Popen([sys.executable, os.path.abspath(__file__)],
                                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                          preexec_fn=die_with_parent)
            self.child.stdout.readline()
        return self

    def take(self):
        """Take again what the last run has left, before it is given back to the hypervisor below."""
        if self.child:
            self.child.stdin.write(b"take\n")
            self.child.stdin.flush()
            if not self.child.stdout.readline():
                raise RuntimeError("the process that holds the host's memory ended; is something else "
                                   "short of memory here?")

    def __exit__(self, *_):
        if self.child:
            self.child.stdin.close()
            self.child.wait(60)
            self.child.stdout.close()


class Chunks:
    """Of one mapping, each held or not."""

    def __init__(self, nr_bytes):
        self.memory = mmap.mmap(-1, nr_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.memory.madvise(mmap.MADV_HUGEPAGE)
        self.absent = list(range(0, nr_bytes - CHUNK_BYTES + 1, CHUNK_BYTES))
        self.held = []

    def take(self):
        """All but LEAST_BYTES; then FREE_BYTES go back, which are warm now."""
        while self.absent and free_bytes() > LEAST_BYTES + CHUNK_BYTES:
            self.held.append(self.absent.pop())
            self.memory.madvise(MADV_POPULATE_WRITE, self.held[-1], CHUNK_BYTES)
            self.memory.madvise(mmap.MADV_FREE, self.held[-1], CHUNK_BYTES)
        self.give()

    def give(self):
        """Have FREE_BYTES free, as long as there is anything to give."""
        while self.held and free_bytes() < FREE_BYTES:
            self.absent.append(self.held.pop(0))
            self.memory.madvise(mmap.MADV_DONTNEED, self.absent[-1], CHUNK_BYTES)


def hold():
    """The child: take all; again on each line of the input; at its end, end."""
    with open("/proc/self/oom_score_adj", "w") as f:
        f.write("1000")  # whoever is short of memory is to have this
    chunks = Chunks(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    chunks.take()
    print(flush=True)
    os.set_blocking(0, False)
    while True:
        try:
            if not os.read(0, 64):
                return
            chunks.take()
            print(flush=True)
        except BlockingIOError:
            chunks.give()
            time.sleep(POLL_S)


if __name__ == "__main__":
    hold()
