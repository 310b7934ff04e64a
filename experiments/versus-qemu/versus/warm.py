"""Memory that costs the same to touch whoever takes it, and whenever.

Where this host is itself a guest, free memory may have been given back to the hypervisor below
(virtio-balloon's free page reporting does so within seconds). Touching it again then costs fifty times as
much as touching memory that is still there. Which side pays for that is chance, and it can be most of a
migration. So a child process holds all of this host's memory, in huge pages as both VMMs use them, and
keeps just a little free: what others take it replaces, and what they leave, or what has been free for too
long, it takes again when it is told to. Memory that nobody but the hypervisor below has is then never
used.
"""
import mmap
import os
import subprocess
import sys
import time

if __name__ != "__main__":
    from versus.process import die_with_parent

MIB = 1 << 20
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
HUGE_PAGE_ORDER = 9
FREE_BYTES = 640 * MIB  # in huge pages, kept for whoever wants memory next
LEAST_BYTES = 256 * MIB  # free while sweeping; less, and the kernel begins to reclaim
KERNEL_BYTES = 384 * MIB  # KVM wants 160 MiB of its own for a slot of 64 GiB, and there are two VMMs
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


def free_huge_bytes():
    """What is free in blocks that huge pages can be had of without moving others."""
    nr_pages = 0
    with open("/proc/buddyinfo") as f:
        for line in f:
            nr_free = [int(word) for word in line.split("zone")[1].split()[1:]]
            nr_pages += sum(nr << order for order, nr in enumerate(nr_free) if order >= HUGE_PAGE_ORDER)
    return nr_pages * PAGE_BYTES


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
        """Take again what others have left, and touch the little that stays free: that is warm then, for
        a second or two."""
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
        while self.absent and free_huge_bytes() > FREE_BYTES:
            self.held.append(self.absent.pop())
            self.memory.madvise(MADV_POPULATE_WRITE, self.held[-1], CHUNK_BYTES)
            self.memory.madvise(mmap.MADV_FREE, self.held[-1], CHUNK_BYTES)

    def give(self):
        """Have FREE_BYTES free, as long as there is anything to give."""
        while self.held and free_huge_bytes() < FREE_BYTES:
            self.absent.append(self.held.pop(0))
            self.memory.madvise(mmap.MADV_DONTNEED, self.absent[-1], CHUNK_BYTES)


def sweep():
    """Touch what is free, in small pages: they need not be found side by side."""
    nr_bytes = free_bytes()
    with mmap.mmap(-1, nr_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, nr_bytes - CHUNK_BYTES, CHUNK_BYTES):
            if free_bytes() < LEAST_BYTES + CHUNK_BYTES:
                break
            memory.madvise(MADV_POPULATE_WRITE, at, CHUNK_BYTES)


def sweep_kernel_memory():
    """Free memory that was the kernel's is kept apart, for the kernel. Page tables are of it, and reading
    one page of each 2 MiB of a mapping that has no memory makes one."""
    with mmap.mmap(-1, KERNEL_BYTES // PAGE_BYTES * 2 * MIB, prot=mmap.PROT_READ,
                   flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        sum(memory[at] for at in range(0, len(memory), 2 * MIB))


def take_and_sweep(chunks):
    chunks.take()
    chunks.give()
    sweep_kernel_memory()
    sweep()
    print(flush=True)


def hold():
    """The child: take all; again on each line of the input; at its end, end."""
    with open("/proc/self/oom_score_adj", "w") as f:
        f.write("1000")  # whoever is short of memory is to have this
    chunks = Chunks(PAGE_BYTES * os.sysconf("SC_PHYS_PAGES"))
    take_and_sweep(chunks)
    os.set_blocking(0, False)
    while True:
        try:
            if not os.read(0, 64):
                return
            take_and_sweep(chunks)
        except BlockingIOError:
            chunks.give()
            time.sleep(POLL_S)


if __name__ == "__main__":
    hold()
