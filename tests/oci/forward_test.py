#!/usr/bin/env python3
"""port-forward: connections of the host into a sandbox's network, in each of its forms."""
import os
import random
import signal
import socket
import subprocess
import threading
import unittest

from harness import BUSYBOX, IS_OURS, RUNTIME, Case, children_of, eventually, main
from links import in_namespace, ip, namespace

BIG = 3 << 20


def read_all(s):
    out = b""
    while chunk := s.recv(65536):
        out += chunk
    return out


def exchange(s, data):
    """Everything out while everything comes in, then the end of both directions."""
    def give():
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
    t = threading.Thread(target=give)
    t.start()
    try:
        return read_all(s)
    finally:
        t.join()


@unittest.skipUnless(IS_OURS, "a command of runsc")
class Forward(Case):
    def serve(self, *more, change=None, port=7000):
        """A container whose port gives back what it gets, a process a connection."""
        cid = self.create(["/bin/sh", "-c", f"exec nc -ll -p {port} -e cat"], change)
        self.assertEqual(self.call(*more, "start", cid).returncode, 0)
        eventually(lambda: f":{port:04X}" in self.call("exec", cid, "cat", "/proc/net/tcp",
                                                       "/proc/net/tcp6").stdout, what="a listener")
        return cid

    def stdio(self, cid, port, data):
        p = subprocess.run(self.runtime("port-forward", cid, str(port)), input=data,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=180)
        return p.returncode, p.stdout, p.stderr.decode()

    def test_standard_streams(self):
        cid = self.serve()
        self.assertEqual(self.stdio(cid, 7000, b"hello\n"), (0, b"hello\n", ""))
        self.assertEqual(self.stdio(cid, 7000, b""), (0, b"", ""))
        data = random.Random(1).randbytes(BIG)
        code, out, err = self.stdio(cid, 7000, data)
        self.assertEqual((code, err), (0, ""))
        self.assertTrue(out == data, "bytes are not what they were")

    def test_network_none(self):
        self.write(["/bin/sh", "-c", "exec nc -ll -p 7000 -e cat"])
        cid = self.new_id()
        p = subprocess.run([*RUNTIME, "--network", "none", "--root", str(self.root), "run", "-d",
                            "--bundle", str(self.bundle), cid], stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.assertEqual(p.returncode, 0)
        eventually(lambda: self.stdio(cid, 7000, b"x") == (0, b"x", ""), what="a listener")

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_links_of_a_namespace(self):
        with namespace() as tag:
            cid = self.serve(change=in_namespace(tag))
            self.assertEqual(self.stdio(cid, 7000, b"over a namespace\n")[1], b"over a namespace\n")
            self.call("delete", "--force", cid)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_localhost_of_a_namespace(self):
        """Who dials localhost inside the pod's namespace, as CRI's port-forward does, finds the guest."""
        def dial(tag, address, port, data):
            p = subprocess.run(["ip", "netns", "exec", tag, BUSYBOX, "nc", address, str(port)],
                               input=data, stdout=subprocess.PIPE, timeout=180)
            return p.stdout
        with namespace() as tag:
            ip("-n", tag, "link", "set", "lo", "up")
            cid = self.serve(change=in_namespace(tag))
            data = random.Random(3).randbytes(BIG)
            for address in ("127.0.0.1", "127.3.2.1", "::1"):
                self.assertTrue(dial(tag, address, 7000, data) == data, address)
            self.assertEqual(dial(tag, "127.0.0.1", 7001, b"x"), b"", "nobody listens")
            self.assertEqual(dial(tag, "127.0.0.1", 7000, b"again"), b"again")
            self.call("delete", "--force", cid)
            self.assertEqual(dial(tag, "127.0.0.1", 7000, b"x"), b"", "the container is gone")

    def test_nobody_listens(self):
        cid = self.serve()
        code, out, err = self.stdio(cid, 7001, b"hello\n")
        self.assertNotEqual(code, 0)
        self.assertIn("7001", err)
        self.assertIn("refused", err)
        for ports in ("0", "65536", "x", "1:2:3", "-1", "70000:80"):
            p = self.call("port-forward", cid, ports)
            self.assertNotEqual(p.returncode, 0, ports)
        self.assertNotEqual(self.call("port-forward", "--listen", "/tmp/x", cid, "1:2").returncode, 0)
        self.assertNotEqual(self.call("port-forward", "nobody", "80").returncode, 0)

    def test_the_guest_ends_first(self):
        cid = self.create(["/bin/sh", "-c", "while :; do echo bye | nc -l -p 7000; done"])
        self.assertEqual(self.call("start", cid).returncode, 0)
        p = eventually(lambda: self.stdin_open(cid), what="a listener")
        self.assertEqual(p.stdout.readline(), b"bye\n")
        p.stdin.close()
        self.assertEqual(p.wait(120), 0)
        p.stdout.close()

    def test_a_listener_that_is_busy(self):
        """Those that find its queue full wait for their turn."""
        cid = self.create(["/bin/sh", "-c", "nc -ll -p 7000 -e cat & echo $! > /tmp/pid; wait"])
        self.assertEqual(self.call("start", cid).returncode, 0)
        eventually(lambda: self.stdio(cid, 7000, b"x") == (0, b"x", ""), what="a listener")
        signal_it = lambda name: self.call("exec", cid, "sh", "-c", f"kill -{name} $(cat /tmp/pid)")
        self.assertEqual(signal_it("STOP").returncode, 0)
        clients = []
        for i in range(6):
            p = subprocess.Popen(self.runtime("port-forward", cid, "7000"), stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE)
            self.addCleanup(self._reap, p)
            p.stdin.write(b"%d" % i)
            p.stdin.flush()
            clients.append(p)
        self.assertEqual(signal_it("CONT").returncode, 0)
        for i, p in enumerate(clients):
            self.assertEqual(p.communicate(timeout=180)[0], b"%d" % i)

    def stdin_open(self, cid):
        p = subprocess.Popen(self.runtime("port-forward", cid, "7000"), stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if p.stdout.peek(1):
            return p
        p.stdin.close()
        p.stdout.close()
        p.wait()
        return None

    def listen(self, cid, *args):
        p = subprocess.Popen(self.runtime("port-forward", *args[:-1], cid, args[-1]),
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.addCleanup(self._reap, p)
        return p

    def test_port_of_the_host(self):
        cid = self.serve()
        p = self.listen(cid, "0:7000")
        host, port = p.stdout.readline().strip().split(":")
        self.assertEqual(host, "127.0.0.1")
        sockets = [socket.create_connection((host, int(port))) for _ in range(8)]
        for i, s in enumerate(sockets):
            s.sendall(b"%d\n" % i)
        for i, s in enumerate(sockets):
            self.assertEqual(s.recv(10), b"%d\n" % i)
            s.close()
        data = random.Random(2).randbytes(BIG)
        with socket.create_connection((host, int(port))) as s:
            self.assertTrue(exchange(s, data) == data)
        eventually(lambda: not children_of(p.pid), what="the end of each connection's process")
        self.call("kill", cid, "KILL")
        self.assertEqual(p.wait(120), 0, "it ends with the container")

    def test_unix_socket(self):
        cid = self.serve()
        path = self.dir / "forward.sock"
        p = self.listen(cid, "--listen", str(path), "7000")
        eventually(path.exists, what="the socket")
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)

        def connect():
            s = socket.socket(socket.AF_UNIX)
            try:
                s.connect(str(path))
                return s
            except ConnectionRefusedError:
                s.close()
                return None
        with eventually(connect, what="it listens") as s:
            self.assertEqual(exchange(s, b"over a socket"), b"over a socket")
        self.call("kill", cid, "KILL")
        self.assertEqual(p.wait(120), 0)
        self.assertFalse(path.exists())

    def test_stream(self):
        cid = self.serve()
        path = self.dir / "stream.sock"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            p = self.listen(cid, "--stream", str(path), "7000")
            with server.accept()[0] as s:
                self.assertEqual(exchange(s, b"backwards"), b"backwards")
            self.assertEqual(p.wait(120), 0)

    def test_client_killed(self):
        """Whatever end the clients have, the sandbox keeps nothing of it."""
        cid = self.serve()
        sentry = self.state(cid)["pid"]
        threads = lambda: len(os.listdir(f"/proc/{sentry}/task"))
        fds = lambda: len(os.listdir(f"/proc/{sentry}/fd"))
        self.stdio(cid, 7000, b"warm")
        eventually(lambda: len(self.call("exec", cid, "ps").stdout.splitlines()) == 3, what="no cat")
        before = threads(), fds()
        for _ in range(30):
            p = subprocess.Popen(self.runtime("port-forward", cid, "7000"), stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE)
            p.stdin.write(b"x")
            p.stdin.flush()
            self.assertEqual(p.stdout.read(1), b"x")
            p.send_signal(signal.SIGKILL)
            p.wait()
            p.stdin.close()
            p.stdout.close()
        eventually(lambda: threads() <= before[0] and fds() <= before[1],
                   what="threads and descriptors are given back")

    def test_container_of_a_pod(self):
        box = self.create(["/bin/sleep", "1000"], lambda c: c.update(annotations={
            "io.kubernetes.cri.container-type": "sandbox"}))
        self.assertEqual(self.call("start", box).returncode, 0)
        one = self.create(["/bin/sh", "-c", "exec nc -ll -p 7000 -e cat"], lambda c: c.update(annotations={
            "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": box}))
        self.assertEqual(self.call("start", one).returncode, 0)
        for cid in (box, one):
            eventually(lambda: self.stdio(cid, 7000, b"pod") == (0, b"pod", ""), what="a listener")


if __name__ == "__main__":
    main()
