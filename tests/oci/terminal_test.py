#!/usr/bin/env python3
"""Terminals: a pty for the guest, ^C, window sizes, console sockets."""
import array
import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time

from harness import Case, alive, eventually, main


class Master:
    """The master side of a pty, read by expectation."""

    def __init__(self, fd):
        self.fd, self.seen = fd, ""

    def expect(self, pattern, timeout=120):
        end = time.monotonic() + timeout
        while not re.search(pattern, self.seen):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise AssertionError(f"no {pattern!r} in {self.seen!r}")
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                data = b""
            if not data:
                raise AssertionError(f"end before {pattern!r} in {self.seen!r}")
            self.seen += data.decode(errors="replace")
        match = re.search(pattern, self.seen)
        self.seen = self.seen[match.end():]
        return match

    def send(self, text):
        os.write(self.fd, text.encode())

    def resize(self, rows, cols):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def with_terminal(config):
    config["process"]["terminal"] = True


class Terminal(Case):
    def attach(self, script):
        """runsc run on a pty of our own, as a person's shell would start it."""
        self.write(["/bin/sh", "-c", script], with_terminal)
        master, slave = pty.openpty()
        m = Master(master)
        m.resize(30, 100)

        def own_session():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        p = subprocess.Popen(self.runtime("run", "--bundle", str(self.bundle), self.new_id()),
                             stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_session)
        os.close(slave)
        self.addCleanup(os.close, master)
        self.addCleanup(self._end, p)
        return m, p

    @staticmethod
    def _end(p):
        if p.poll() is None:
            p.kill()
        p.wait()

    def test_is_a_terminal(self):
        m, p = self.attach("tty; test -t 0 && test -t 1 && test -t 2 && echo all")
        m.expect("/dev/(pts/0|console)")
        m.expect("all\r\n")
        self.assertEqual(p.wait(120), 0)

    def test_echo_and_lines(self):
        m, p = self.attach("echo go; read a; echo \"<$a>\"")
        m.expect("go\r\n")
        m.send("hellp\x7fo\n")
        m.expect("<hello>\r\n")
        self.assertEqual(p.wait(120), 0)

    def test_interrupt_key(self):
        m, p = self.attach("trap 'echo caught; exit 6' INT; echo go; while :; do sleep 0.05; done")
        m.expect("go\r\n")
        m.send("\x03")
        m.expect("caught\r\n")
        self.assertEqual(p.wait(120), 6)

    def test_end_of_file_key(self):
        m, p = self.attach("echo go; cat; echo over")
        m.expect("go\r\n")
        m.send("line\n\x04")
        m.expect("line\r\n")
        m.expect("over\r\n")
        self.assertEqual(p.wait(120), 0)

    def test_window_size(self):
        m, p = self.attach("stty size; trap 'stty size; exit' WINCH; echo go;"
                           "while :; do sleep 0.05; done")
        m.expect("30 100\r\n")
        m.expect("go\r\n")
        m.resize(44, 123)
        os.kill(p.pid, signal.SIGWINCH)
        m.expect("44 123\r\n")
        self.assertEqual(p.wait(120), 0)

    def test_job_control(self):
        m, p = self.attach("exec sh -i")
        m.expect("# ")
        m.send("sh -c 'echo up; exec sleep 100'\n")
        m.expect("up\r\n")
        m.send("\x1a")
        m.expect("Stopped")
        m.send("bg; jobs; kill %1; wait %1; echo status $?\n")
        m.expect("status [0-9]+\r\n")
        m.send("exit 3\n")
        self.assertEqual(p.wait(120), 3)


class ConsoleSocket(Case):
    def listen(self):
        path = str(self.dir / "console.sock")
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.bind(path)
        s.listen(1)
        s.settimeout(120)
        self.addCleanup(s.close)
        return s, path

    def receive(self, s):
        conn, _ = s.accept()
        fds = array.array("i")
        _, anc, _, _ = conn.recvmsg(4096, socket.CMSG_SPACE(4))
        conn.close()
        for level, kind, data in anc:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[:4])
        self.assertEqual(len(fds), 1)
        self.addCleanup(os.close, fds[0])
        return Master(fds[0])

    def test_create(self):
        s, path = self.listen()
        self.write(["/bin/sh", "-c", "echo here; trap 'stty size' WINCH; while read a; do"
                    " echo \"<$a>\"; done; sleep 1000"], with_terminal)
        cid = self.new_id()
        p = self.call_quiet("create", "--bundle", str(self.bundle), "--console-socket", path, cid)
        self.assertEqual(p.returncode, 0)
        m = self.receive(s)
        self.assertEqual(self.call("start", cid).returncode, 0)
        m.expect("here\r\n")
        m.send("x\n")
        m.expect("<x>\r\n")
        # Whoever holds the master sizes it without telling the runtime.
        m.resize(50, 60)
        m.expect("50 60\r\n")

    def test_exec(self):
        s, path = self.listen()
        cid = self.create(["/bin/sleep", "1000"])
        self.assertEqual(self.call("start", cid).returncode, 0)
        pid_file = self.dir / "pid"
        p = self.call_quiet("exec", "--detach", "--tty", "--console-socket", path, "--pid-file",
                            str(pid_file), cid, "/bin/sh", "-c",
                            "tty; trap 'stty size; exit' WINCH; echo go;"
                            "while :; do sleep 0.05; done")
        self.assertEqual(p.returncode, 0)
        m = self.receive(s)
        m.expect("/dev/pts/[0-9]+\r\n")
        m.expect("go\r\n")
        m.resize(51, 61)
        m.expect("51 61\r\n")
        pid = int(pid_file.read_text())
        eventually(lambda: not alive(pid), what="exec's end")


if __name__ == "__main__":
    main()
