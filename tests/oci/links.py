"""Links between a container's network namespace and the host, or another namespace, for the tests
of the network; all under names that nobody else has."""
import contextlib
import heapq
import os
import random
import select
import socket
import subprocess
import threading
import time

HOST, GUEST = "10.231.7.1", "10.231.7.2"
HOST6, GUEST6 = "fd31:7::1", "fd31:7::2"


def ip(*args):
    subprocess.run(["ip", *args], check=True)


@contextlib.contextmanager
def namespace(number=0):
    """A namespace with eth0, whose other end is on the host. number: one of several at a time, each
    with a network of its own."""
    tag = f"rw{os.getpid() % 100000}{'abcdefgh'[number] if number else ''}"
    net, net6 = (f"10.231.7{number or ''}", f"fd31:7{number or ''}:")
    ip("netns", "add", tag)
    try:
        ip("link", "add", tag, "type", "veth", "peer", "name", "eth0", "netns", tag)
        ip("addr", "add", net + ".1/24", "dev", tag)
        ip("addr", "add", net6 + ":1/64", "dev", tag, "nodad")
        ip("link", "set", tag, "up")
        ip("-n", tag, "addr", "add", net + ".2/24", "dev", "eth0")
        ip("-n", tag, "addr", "add", net6 + ":2/64", "dev", "eth0", "nodad")
        ip("-n", tag, "link", "set", "eth0", "up")
        ip("-n", tag, "route", "add", "default", "via", net + ".1")
        yield tag
    finally:
        subprocess.run(["ip", "link", "del", tag], stderr=subprocess.DEVNULL, check=False)
        ip("netns", "del", tag)


def in_namespace(tag):
    def change(config):
        for ns in config["linux"]["namespaces"]:
            if ns["type"] == "network":
                ns["path"] = f"/run/netns/{tag}"
    return change


class Wire:
    """Two namespaces, 10.231.9.2 ("a") and 10.231.9.1 ("b"), whose frames are carried by a thread,
    which loses, doubles and delays some of them when bad."""
    LOSE, DOUBLE, DELAY = 0.01, 0.005, 0.05

    def __init__(self, bad=True):
        self.bad = bad

    def __enter__(self):
        self.base = f"rw{os.getpid() % 100000}"
        self.random = random.Random(7)
        self.gone = 0
        self.done = threading.Event()
        self.socks = []
        try:
            for side, address in (("a", "10.231.9.2"), ("b", "10.231.9.1")):
                self.add(side, address)
        except BaseException:
            self.remove()
            raise
        self.thread = threading.Thread(target=self.carry)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        self.remove()

    def namespace(self, side):
        return self.base + side

    def lost(self):
        return self.gone

    def add(self, side, address):
        tag = self.namespace(side)
        ip("netns", "add", tag)
        ip("link", "add", tag, "type", "veth", "peer", "name", "eth0", "netns", tag)
        ip("link", "set", tag, "up")
        ip("-n", tag, "addr", "add", address + "/24", "dev", "eth0")
        ip("-n", tag, "link", "set", "eth0", "up")
        # Whole frames with checksums, as a wire has them.
        for where in ([], ["ip", "netns", "exec", tag]):
            subprocess.run([*where, "ethtool", "-K", "eth0" if where else tag, "tx", "off", "tso",
                            "off", "gso", "off", "gro", "off"], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        s.bind((tag, 3))
        s.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
        self.socks.append(s)

    def remove(self):
        for s in self.socks:
            s.close()
        for side in "ab":
            tag = self.namespace(side)
            for args in (["link", "del", tag], ["netns", "del", tag]):
                subprocess.run(["ip", *args], stderr=subprocess.DEVNULL, check=False)

    def carry(self):
        held, serial = [], 0
        while not self.done.is_set():
            wait = max(0, held[0][0] - time.monotonic()) if held else 0.2
            ready, _, _ = select.select(self.socks, [], [], min(wait, 0.2))
            for s in ready:
                frame = s.recv(70000)
                other = self.socks[1 - self.socks.index(s)]
                dice = self.random.random() if self.bad else 0.5
                if dice < self.LOSE:
                    self.gone += 1
                    continue
                for _ in range(2 if dice > 1 - self.DOUBLE else 1):
                    late = self.bad and self.random.random() < 0.02
                    late = self.DELAY * self.random.random() if late else 0
                    serial += 1
                    heapq.heappush(held, (time.monotonic() + late, serial, frame, other))
            while held and held[0][0] <= time.monotonic():
                _, _, frame, other = heapq.heappop(held)
                with contextlib.suppress(OSError):
                    other.send(frame)
