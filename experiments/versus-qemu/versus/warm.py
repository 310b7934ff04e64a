"""Memory held ready for somebody else's first touch.

Where this host is itself a guest, free memory may have been given back to the hypervisor below
(virtio-balloon's free page reporting does so within two seconds, for free blocks of 2 MiB and more).
Touching it again then costs ten times as much as touching memory that is still there. Which side pays
for that is chance, and it can be most of a migration. So a child process touches as much memory as is
about to be needed, in huge pages as both VMMs use them, and gives it back just ahead of its use: always
so much that the host's free memory stays what it was, whoever takes it.
"""
import mmap
import os
import subprocess
import sys
import time

if __name__ != "__main__":
    from versus.process import die_with_parent

MIB = 1 << 20
AHEAD_BYTES = 256 * MIB  # free before anybody needs it
CHUNK_BYTES = 32 * MIB
POLL_S = 0.002


def meminfo(name):
    with open("/proc/meminfo") as f:
        for line in f:
            if line.startswith(name + ":"):
                return int(line.split()[1]) << 10
    raise RuntimeError(f"/proc/meminfo has no {name}")


class WarmMemory:
    def __init__(self, nr_bytes):
        nr_bytes = min(nr_bytes, meminfo("MemAvailable") - 1024 * MIB) // CHUNK_BYTES * CHUNK_BYTES
        self.child = subprocess.Popen([sys.executable, os.path.abspath(__file__), str(nr_bytes)],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      preexec_fn=die_with_parent)
        self.child.stdout.readline()

    def feed(self):
        """From now on, give back what others take."""
        self.child.stdin.write(b"feed\n")
        self.child.stdin.flush()
        self.child.stdout.readline()

    def release(self):
        """All of it. May be called again."""
        if self.child.poll() is None:
            self.child.stdin.close()
            self.child.wait(60)
        self.child.stdout.close()


def hold(nr_bytes):
    """The child: hold; on the first line, feed; at the end of the input, end."""
    memory = mmap.mmap(-1, nr_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    for at in range(0, nr_bytes, 4096):
        memory[at] = 1
    print(flush=True)
    if sys.stdin.readline():
        _feed(memory, nr_bytes)


def _feed(memory, nr_bytes):
    given = 0
    level = meminfo("MemFree") + AHEAD_BYTES
    os.set_blocking(0, False)
    answered = False
    while not _at_end():
        while given < nr_bytes and meminfo("MemFree") < level:
            memory.madvise(mmap.MADV_DONTNEED, given, CHUNK_BYTES)
            given += CHUNK_BYTES
        if not answered:
            print(flush=True)
            answered = True
        time.sleep(POLL_S)


def _at_end():
    try:
        return os.read(0, 1) == b""
    except BlockingIOError:
        return False


if __name__ == "__main__":
    hold(int(sys.argv[1]))
