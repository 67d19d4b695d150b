#!/usr/bin/env python3
"""Pods with a network of their own, made by CNI's ptp plugin in a network namespace of the test's."""
import contextlib
import ctypes
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import threading
import unittest

import cri
from harness import RUNTIME, Containerd, eventually

CLONE_NEWNET = 0x40000000
SERVER = ("nc", "-ll", "-p", "7000", "-e", "cat")
BIG = 1 << 20


def connect_in(pid, address):
    """A TCP connection made in the network namespace of pid; the socket works everywhere."""
    result = []

    def work():
        libc = ctypes.CDLL(None, use_errno=True)
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            if libc.setns(fd, CLONE_NEWNET) == 0:
                result.append(socket.create_connection(address, 30))
        except OSError:
            pass
        finally:
            os.close(fd)
    t = threading.Thread(target=work)
    t.start()
    t.join()
    if not result:
        raise ConnectionError(address)
    return result[0]


@unittest.skipUnless(shutil.which("/usr/lib/cni/ptp"), "needs containernetworking-plugins")
class CriNetwork(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cd = Containerd(cri.config)
        cls.addClassCleanup(cls.cd.remove)
        conf = cls.cd.dir / "cni"
        conf.mkdir()
        (conf / "10-ptp.conflist").write_text(json.dumps({
            "cniVersion": "0.4.0", "name": "rwtest", "plugins": [{
                "type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": {
                    "type": "host-local", "dataDir": str(cls.cd.dir / "leases"),
                    "ranges": [[{"subnet": "10.231.8.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}))
        cls.cri = cri.start(cls.cd, ["unshare", "--net", "sh", "-c", "ip link set lo up; exec \"$@\"", "sh"])
        cls.net = cls.cd.process.pid

    def setUp(self):
        self.serial = 0

    def connect(self, address):
        return connect_in(self.net, address)

    def stream(self, new_url):
        """containerd has been seen to close a connection that it had not answered; the runtime is asked after the
        answer. That is told, with what its log says, and a second time is an error."""
        try:
            return cri.Stream(self.connect, new_url())
        except ConnectionError as e:
            if str(e):
                raise
            log = (self.cd.dir / "log").read_text(errors="replace").splitlines()
            print("containerd has closed a connection unanswered:", *log[-40:], sep="\n", file=sys.stderr)
            return cri.Stream(self.connect, new_url())

    def pod(self):
        """(pod, its configuration, a container in it)"""
        self.serial += 1
        name = f"{self._testMethodName.replace('_', '-')}-{self.serial}"
        logs = self.cd.dir / f"logs-{name}"
        logs.mkdir()
        config = self.cri.pod_config(name, str(logs), self.cri.POD_NETWORK)
        pod = self.cri.run_pod(config, "ringwall")
        self.addCleanup(self.cri.remove_pod, pod)
        self.addCleanup(self.cri.stop_pod, pod)
        return pod, config

    def container(self, pod, *command):
        cid = self.cri.create(pod[0], pod[1], "c", cri.IMAGE, command)
        self.cri.start(cid)
        return cid

    def shell(self, cid, script):
        code, out, err = self.cri.exec_sync(cid, ["sh", "-c", script])
        self.assertEqual((code, err), (0, ""))
        return out

    def serving(self, pod):
        cid = self.container(pod, *SERVER)
        eventually(lambda: ":1B58" in self.shell(cid, "cat /proc/net/tcp /proc/net/tcp6"), what="a listener")
        return cid

    def exchange(self, s, data):
        def give():
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
        t = threading.Thread(target=give)
        t.start()
        got = b""
        while chunk := s.recv(65536):
            got += chunk
        t.join()
        return got

    def test_what_the_pod_sees(self):
        pod = self.pod()
        address = self.cri.pod_address(pod[0])
        self.assertTrue(address.startswith("10.231.8."), address)
        cid = self.container(pod, "sleep", "1000")
        seen = self.shell(cid, "ip -o addr; ip route; cat /proc/net/dev")
        self.assertIn(f"{address}/24", seen)
        self.assertIn("default via 10.231.8.1 dev eth0", seen)
        if "runsc" in RUNTIME:
            # The host's side of the namespace answers no more: all of it is the sandbox's.
            self.assertNotIn(address, subprocess.run(
                ["nsenter", f"--net={self.cri.pod_netns(pod[0])}", "ip", "-o", "addr"],
                stdout=subprocess.PIPE, check=True, text=True).stdout)

    def test_from_the_node(self):
        pod = self.pod()
        self.serving(pod)
        data = random.Random(4).randbytes(BIG)
        with self.connect((self.cri.pod_address(pod[0]), 7000)) as s:
            self.assertTrue(self.exchange(s, data) == data)
        with self.assertRaises(ConnectionError):
            self.connect((self.cri.pod_address(pod[0]), 7001))

    def test_to_the_node(self):
        pod = self.pod()
        cid = self.container(pod, "sleep", "1000")
        server = subprocess.Popen(["nsenter", "--net", "-t", str(self.net), "busybox", "nc", "-ll", "-p",
                                   "7005", "-e", "cat"])
        try:
            eventually(lambda: self.cri.exec_sync(cid, ["sh", "-c", "echo up | nc 10.231.8.1 7005"])[1]
                       == "up\n", what="the node answers")
        finally:
            server.kill()
            server.wait()

    def test_from_pod_to_pod(self):
        one, two = self.pod(), self.pod()
        self.serving(one)
        cid = self.container(two, "sleep", "1000")
        address = self.cri.pod_address(one[0])
        self.assertEqual(self.shell(cid, f"echo across | nc {address} 7000"), "across\n")
        self.assertEqual(self.shell(cid, f"head -c {BIG} /dev/zero | nc {address} 7000 | wc -c"), f"{BIG}\n")
        self.assertIn("64 bytes", self.shell(cid, f"ping -c 1 {address}"))

    def test_containers_share_the_network(self):
        pod = self.pod()
        self.serving(pod)
        cid = self.cri.create(pod[0], pod[1], "other", cri.IMAGE, ["sleep", "1000"])
        self.cri.start(cid)
        self.assertEqual(self.shell(cid, "echo beside | nc 127.0.0.1 7000"), "beside\n")

    def test_port_forward(self):
        pod = self.pod()
        self.serving(pod)
        for _ in range(3):
            s = self.stream(lambda: self.cri.port_forward_url(pod[0], 7000))
            with contextlib.closing(s):
                s.send(s.STDIN, b"through the node\n")
                # Each channel begins with the port.
                got = s.until(s.STDIN, lambda b: b.endswith(b"\n"))
                self.assertEqual(got, (7000).to_bytes(2, "little") + b"through the node\n")

    def test_exec_stream(self):
        pod = self.pod()
        cid = self.container(pod, "sleep", "1000")
        s = self.stream(lambda: self.cri.exec_url(cid, ["sh", "-c", "read x; echo got $x; echo bad >&2"]))
        with contextlib.closing(s):
            s.send(s.STDIN, b"line\n")
            out = {1: b"", 2: b"", 3: b""}
            while frame := s.receive():
                out[frame[0]] += frame[1]
        self.assertEqual((out[1], out[2]), (b"got line\n", b"bad\n"))
        self.assertIn(b"Success", out[3])
        s = self.stream(lambda: self.cri.exec_url(cid, [
            "sh", "-c", "until stty size | grep '43 132'; do sleep 0.05; done"], tty=True))
        with contextlib.closing(s):
            s.send(s.RESIZE, json.dumps({"Width": 132, "Height": 43}).encode())
            self.assertIn(b"43 132", s.until(s.STDOUT, lambda b: b"43 132" in b))

    def test_nothing_left(self):
        pod = self.pod()
        self.serving(pod)
        netns = pathlib.Path(self.cri.pod_netns(pod[0]))
        self.assertTrue(netns.exists())
        leases = lambda: [p.name for p in (self.cd.dir / "leases/rwtest").glob("10.*")]
        self.assertIn(self.cri.pod_address(pod[0]), leases())
        self.cri.stop_pod(pod[0])
        self.assertFalse(netns.exists())
        self.assertEqual(leases(), [])
        links = subprocess.run(["nsenter", "--net", "-t", str(self.net), "ip", "-o", "link"], check=True,
                               stdout=subprocess.PIPE, text=True).stdout.splitlines()
        self.assertEqual([line for line in links if "veth" in line], [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
