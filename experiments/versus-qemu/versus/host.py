"""The host: what it is, its memory made ready, and the limits that nothing on it can beat."""
import ctypes
import json
import mmap
import os
import platform
import shutil
import socket
import subprocess
import sys
import time

MIB = 1 << 20


def loopback_bytes():
    with open("/sys/class/net/lo/statistics/tx_bytes") as f:
        return int(f.read())


def processor_s():
    """Seconds all processors have been idle, and kept from running by the hypervisor below."""
    with open("/proc/stat") as f:
        ticks = [int(word) for word in f.readline().split()[1:]]
    hz = os.sysconf("SC_CLK_TCK")
    return {"idle": (ticks[3] + ticks[4]) / hz, "stolen": ticks[7] / hz}


def _free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def iperf3_bytes_per_s(nr_connections, seconds):
    """What TCP over loopback carries with this many connections; None without iperf3."""
    if not shutil.which("iperf3"):
        return None
    port = str(_free_port())
    server = subprocess.Popen(["iperf3", "-s", "-1", "-p", port, "-B", "127.0.0.1"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.2)
        result = subprocess.run(
            ["iperf3", "-c", "127.0.0.1", "-p", port, "-P", str(nr_connections), "-t", str(seconds),
             "-J"], capture_output=True, text=True, timeout=seconds + 10)
        end = json.loads(result.stdout).get("end", {})
        return end["sum_received"]["bits_per_second"] / 8
    except (KeyError, ValueError, subprocess.TimeoutExpired):
        return None
    finally:
        server.kill()
        server.wait()


def memcpy_bytes_per_s(seconds=0.3, size=128 * MIB):
    """Copying between two buffers larger than the caches, one thread."""
    source, target = mmap.mmap(-1, size), mmap.mmap(-1, size)
    to = (ctypes.c_char * size).from_buffer(target)
    origin = (ctypes.c_char * size).from_buffer(source)
    ctypes.memset(origin, 1, size)
    ctypes.memset(to, 1, size)
    copied, start = 0, time.monotonic()
    while (elapsed := time.monotonic() - start) < seconds:
        ctypes.memmove(to, origin, size)
        copied += size
    del to, origin
    source.close()
    target.close()
    return copied / elapsed


def _first_line(argv):
    try:
        out = subprocess.run(argv, capture_output=True, text=True, timeout=10).stdout
        return out.splitlines()[0].strip()
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return "?"


def _cpu_model():
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def describe(qemu, godwit):
    here = os.path.dirname(os.path.abspath(__file__))
    return {
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "cpu": _cpu_model(),
        "nr_cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "qemu": _first_line([qemu, "--version"]),
        "godwit": _first_line([godwit, "--version"]),
        "commit": _first_line(["git", "-C", here, "describe", "--always", "--dirty"]),
    }
