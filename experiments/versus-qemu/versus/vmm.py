"""The two VMMs, each as the same few verbs: start a guest, wait for one, settings, what it claims."""
import json
import subprocess
import time

from versus.process import Process, wait_until
from versus.qmp import Qmp
from versus.serial import Serial

START_TIMEOUT_S = 30


class Machine:
    """One VMM process with its control socket and the guest's serial line."""

    def __init__(self, process, qmp_path, serial_path):
        deadline = time.monotonic() + START_TIMEOUT_S
        self.process = process
        try:
            self.serial = Serial(serial_path, deadline)
            self.qmp = Qmp(qmp_path, deadline)
        except Exception as error:
            process.kill()
            raise RuntimeError(f"{process.argv[0]}: {error}; {process.log_tail()}") from error
        self.uri = None  # of a destination: where it listens

    def vcpu_tids(self):
        return [cpu["thread-id"] for cpu in self.qmp.call("query-cpus-fast")]

    def close(self):
        self.qmp.close()
        self.serial.close()
        self.process.kill()


def set_capabilities(machine, **states):
    machine.qmp.call("migrate-set-capabilities", {"capabilities": [
        {"capability": name, "state": state} for name, state in states.items()]})


# Some hosts' KVM (AMD here) offers IA32_ARCH_CAPABILITIES and refuses the value QEMU then writes.
QEMU_CPU = "host,arch-capabilities=off"


class Qemu:
    """As its users start it: anonymous guest memory, everything at its default, except that nothing
    limits the bandwidth. Guests larger than the host need reserve=off."""

    name = "qemu"

    def __init__(self, program, directory):
        self.program = program
        self.directory = directory

    def _start(self, run, role, extra):
        base = f"{self.directory}/{role}"
        argv = [self.program, "-M", "microvm,x-option-roms=off,isa-serial=on", "-accel", "kvm",
                "-cpu", QEMU_CPU, "-nodefaults", "-no-user-config", "-display", "none",
                "-smp", str(run.nr_cpus), "-m", str(run.memory >> 20),
                "-kernel", run.kernel, "-append", run.append(),
                "-serial", f"unix:{base}.serial,server=on,wait=off",
                "-qmp", f"unix:{base}.qmp,server=on,wait=off", *extra]
        if run.sparse:
            argv += ["-object", f"memory-backend-ram,id=ram,size={run.memory},reserve=off",
                     "-machine", "memory-backend=ram"]
        return Machine(Process(argv, base + ".log"), base + ".qmp", base + ".serial")

    def start_source(self, run):
        return self._start(run, "source", [])

    def start_destination(self, run):
        machine = self._start(run, "destination", ["-incoming", "defer"])
        self.configure(machine, run)
        machine.qmp.call("migrate-incoming", {"uri": "tcp:127.0.0.1:0"})
        address = machine.qmp.call("query-migrate")["socket-address"][0]
        machine.uri = f"tcp:127.0.0.1:{address['port']}"
        return machine

    def configure(self, machine, run):
        set_capabilities(machine, events=True, multifd=run.channels > 1)
        machine.qmp.call("migrate-set-parameters", {
            "max-bandwidth": 1 << 40, "downtime-limit": run.downtime_limit_ns // 10**6,
            "multifd-channels": run.channels})

    def configure_source(self, machine, run):
        self.configure(machine, run)

    def claims(self, machine, info):
        """What it says of the migration; times in ms."""
        return {
            "total_ms": info["total-time"], "downtime_ms": info["downtime"],
            "setup_ms": info["setup-time"], "wire_bytes": info["ram"]["transferred"],
            "rounds": info["ram"]["dirty-sync-count"],
        }

    def prediction_ms(self, info):
        return info.get("expected-downtime")


class Godwit:
    name = "godwit"

    def __init__(self, program, directory, codec, tracker):
        self.program = program
        self.directory = directory
        self.codec = codec
        self.tracker = tracker

    def _start(self, role, verb, extra, stdout=subprocess.DEVNULL):
        base = f"{self.directory}/{role}"
        argv = [self.program, *verb, "--qmp", f"unix:{base}.qmp",
                "--serial", f"unix:{base}.serial", "--dirty", self.tracker, *extra]
        return Process(argv, base + ".log", stdout), base

    def start_source(self, run):
        process, base = self._start("source", ["run"], [
            "--kernel", run.kernel, "--append", run.append(), "--cpus", str(run.nr_cpus),
            "--memory", f"{run.memory >> 20}M"])
        return Machine(process, base + ".qmp", base + ".serial")

    def start_destination(self, run):
        process, base = self._start("destination", ["receive", "tcp:127.0.0.1:0"], ["--json"],
                                    subprocess.PIPE)
        line = process.popen.stdout.readline()
        if not line:
            process.kill()
            raise RuntimeError(f"godwit receive: {process.log_tail()}")
        # Its serial line is connected when the machine exists, that is during the migration.
        machine = LateMachine(process, base + ".qmp", base + ".serial")
        machine.uri = json.loads(line)["address"]
        return machine

    def configure_source(self, machine, run):
        set_capabilities(machine, events=True, multifd=run.channels > 1)
        machine.qmp.call("migrate-set-parameters", {
            "max-bandwidth": 0, "downtime-limit": run.downtime_limit_ns // 10**6,
            "multifd-channels": run.channels, "x-godwit-codec": self.codec})

    def claims(self, machine, info):
        """Its full report comes with query-migrate, complete once the guest's own view is in."""
        def ended():
            report = machine.qmp.call("query-migrate")["x-godwit"]
            return report if report["ended"] else None
        report = wait_until(ended, 5, "godwit's report", [machine.process])
        blackout = report["blackout"] or {}
        return {
            "total_ms": report["total_ns"] / 1e6, "downtime_ms": report["downtime_ns"] / 1e6,
            "setup_ms": report["setup_ns"] / 1e6, "wire_bytes": report["wire_bytes"],
            "rounds": len(report["rounds"]), "predicted_ms": report["predicted_downtime_ns"] / 1e6,
            "blackout_ms": blackout.get("gap_ns", 0) / 1e6, "report": report,
        }

    def prediction_ms(self, info):
        return info.get("x-godwit", {}).get("predicted_downtime_ns", 0) / 1e6


class LateMachine(Machine):
    """A Godwit destination: it has a control socket at once, the rest when the guest comes."""

    def __init__(self, process, qmp_path, serial_path):
        self.process = process
        self.qmp = Qmp(qmp_path, time.monotonic() + START_TIMEOUT_S)
        self.serial_path = serial_path
        self._serial = None

    @property
    def serial(self):
        if not self._serial:
            self._serial = Serial(self.serial_path, time.monotonic() + START_TIMEOUT_S)
        return self._serial

    def close(self):
        self.qmp.close()
        if self._serial:
            self._serial.close()
        self.process.kill()
