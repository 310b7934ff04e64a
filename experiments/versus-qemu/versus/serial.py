"""The guest's serial line over a unix socket."""
import re
import threading
import time

from versus.qmp import connect_unix


class Serial:
    def __init__(self, path, deadline):
        self.sock = connect_unix(path, deadline)
        self.changed = threading.Condition()
        self.text = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            while data := self.sock.recv(4096):
                with self.changed:
                    self.text += data.decode(errors="replace")
                    self.changed.notify_all()
        except OSError:
            pass

    def ask(self, command, answer, timeout):
        """Send a one-byte command; the match of the regular expression `answer` in what follows."""
        begin = len(self.text)
        self.sock.sendall(command)
        deadline = time.monotonic() + timeout
        with self.changed:
            while not (match := re.search(answer, self.text[begin:])):
                if not self.changed.wait(deadline - time.monotonic()):
                    raise RuntimeError(f"the guest did not answer '{command.decode()}' within "
                                       f"{timeout} s; it said: {self.text[-200:]!r}")
        return match

    def close(self):
        self.sock.close()
