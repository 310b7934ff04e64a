"""Child processes that are always taken down again, and what they cost."""
import ctypes
import os
import signal
import subprocess
import time

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_tick_s = 1 / os.sysconf("SC_CLK_TCK")


def die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A child with its standard error in a file; killed by its own pid, at the latest when this
    process ends."""

    def __init__(self, argv, log_path, stdout=subprocess.DEVNULL):
        self.argv = argv
        self.log_path = log_path
        with open(log_path, "ab") as log:
            self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=log,
                                          preexec_fn=die_with_parent)
        self.pid = self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def log_tail(self):
        with open(self.log_path, errors="replace") as log:
            return " | ".join(log.read().strip().splitlines()[-3:])

    def kill(self):
        if self.alive():
            self.popen.kill()
        self.popen.wait()
        if self.popen.stdout:
            self.popen.stdout.close()

    def cpu_s(self):
        """Processor time of all its threads so far, those that have ended included."""
        with open(f"/proc/{self.pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _tick_s

    def thread_times(self, tids):
        """(running, waiting for a processor) in seconds, summed over these threads."""
        running = waiting = 0
        for tid in tids:
            try:
                with open(f"/proc/{self.pid}/task/{tid}/schedstat") as f:
                    run_ns, wait_ns, _ = f.read().split()
            except FileNotFoundError:
                continue
            running += int(run_ns)
            waiting += int(wait_ns)
        return running / 1e9, waiting / 1e9


def wait_until(condition, timeout, what, processes=(), interval=0.01):
    """Poll; a process that ends meanwhile, or the time running out, is an error."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        for process in processes:
            if not process.alive():
                raise RuntimeError(f"{process.argv[0]} ended: {process.log_tail()}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {timeout} s")
        time.sleep(interval)
