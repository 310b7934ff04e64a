"""A QMP client that dates what it receives with this process's monotonic clock."""
import json
import socket
import threading
import time


class QmpError(Exception):
    pass


class Qmp:
    """One connection. A reader thread dates every message; events are kept, in order."""

    def __init__(self, path, deadline):
        self.path = path
        self.sock = connect_unix(path, deadline)
        self.changed = threading.Condition()
        self.events = []  # (monotonic ns, message)
        self.replies = []
        self.closed = False
        self.next_id = 0
        threading.Thread(target=self._read, daemon=True).start()
        self.call("qmp_capabilities")

    def _read(self):
        try:
            for line in self.sock.makefile("rb"):
                now = time.monotonic_ns()
                self._sort(now, json.loads(line))
        except (OSError, ValueError):
            pass
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def _sort(self, now, message):
        with self.changed:
            if "event" in message:
                self.events.append((now, message))
            elif "QMP" not in message:
                self.replies.append((now, message))
            self.changed.notify_all()

    def call_dated(self, command, arguments=None, timeout=30):
        """The answer, and when it arrived."""
        self.next_id += 1
        request = {"execute": command, "id": self.next_id}
        if arguments:
            request["arguments"] = arguments
        self.sock.sendall(json.dumps(request).encode() + b"\n")
        with self.changed:
            if not self.changed.wait_for(lambda: self.replies or self.closed, timeout):
                raise QmpError(f"{self.path}: no answer to {command} within {timeout} s")
            if not self.replies:
                raise QmpError(f"{self.path}: connection closed during {command}")
            when, reply = self.replies.pop(0)
        if "error" in reply:
            raise QmpError(f"{command}: {reply['error']['desc']}")
        return when, reply["return"]

    def call(self, command, arguments=None, timeout=30):
        return self.call_dated(command, arguments, timeout)[1]

    def find_event(self, name, status=None):
        """When the first such event arrived; None: not yet."""
        for when, event in self.events:
            data = event.get("data", {})
            if event["event"] == name and (status is None or data.get("status") in status):
                return when, data
        return None

    def wait_event(self, name, status=None, timeout=30):
        with self.changed:
            self.changed.wait_for(lambda: self.find_event(name, status) or self.closed, timeout)
            found = self.find_event(name, status)
        if not found:
            raise QmpError(f"{self.path}: no event {name} {status or ''} within {timeout} s")
        return found

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()


def connect_unix(path, deadline):
    """Connect to a socket that somebody is about to listen on."""
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
            return sock
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            if time.monotonic() > deadline:
                raise QmpError(f"{path}: nobody listens") from None
            time.sleep(0.005)
