"""A small client of the Container Runtime Interface: gRPC with messages packed by field number,
and the channels of its streams over a web socket."""
import base64
import json
import os
import struct
import urllib.parse

import grpc

from harness import OWN_SHIM, RUNTIME, eventually, make_image
from protobuf import pack, unpack

IMAGE = "docker.io/library/bb:test"
PAUSE = "docker.io/library/pause:test"


def config(cd_dir):
    """config.toml's part about CRI; the handler "ringwall" is the runtime under test."""
    kind = "runsc.v1" if OWN_SHIM else "runc.v2"
    options = "" if OWN_SHIM else (
        '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ringwall.options]\n'
        f'  BinaryName = "{RUNTIME}"\n  Root = "{cd_dir}/rr"\n')
    plugin = 'plugins."io.containerd.grpc.v1.cri"'
    # Where no network is set up for pods, they are the host's.
    return (f'[{plugin}.cni]\n  bin_dir = "/usr/lib/cni"\n  conf_dir = "{cd_dir}/cni"\n'
            f'[{plugin}]\n  sandbox_image = "{PAUSE}"\n  restrict_oom_score_adj = true\n'
            '  disable_apparmor = true\n  stream_server_address = "127.0.0.1"\n'
            '  stream_server_port = "0"\n'
            f'[{plugin}.containerd]\n  default_runtime_name = "other"\n'
            f'[{plugin}.containerd.runtimes.other]\n  runtime_type = "io.containerd.runc.v2"\n'
            f'[{plugin}.containerd.runtimes.ringwall]\n  runtime_type = "io.containerd.{kind}"\n'
            + options)


def start(cd, wrap=()):
    """Starts a containerd of config(), with images; gives its client."""
    cd.namespace = "k8s.io"
    cd.start(wrap)
    for name, cmd in ((IMAGE, ("sh",)), (PAUSE, ("sleep", "1000000"))):
        make_image(cd.dir / "image.tar", name, cmd)
        p = cd.ctr("image", "import", str(cd.dir / "image.tar"))
        assert p.returncode == 0, p.stderr
    client = Client(cd.address)
    eventually(client.ready, what="the CRI plugin")
    return client


def text(message, number):
    return message.get(number, [b""])[0].decode()


class Stream:
    """What Exec, Attach and PortForward give an address of: numbered channels of bytes.
    connect((host, port)): a socket, made in whatever network the server is in."""
    STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)

    def __init__(self, connect, url):
        parts = urllib.parse.urlsplit(url)
        self.sock = connect((parts.hostname, parts.port))
        self.file = self.sock.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall(f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
                          "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                          f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n"
                          "\r\n".encode())
        status = self.file.readline().decode()
        while self.file.readline().strip():
            pass
        if " 101 " not in status:
            self.close()
            raise ConnectionError(status)

    def send(self, channel, data):
        payload = bytes([channel]) + data
        size = len(payload)
        head = struct.pack("!BB", 0x82, 0x80 | size) if size < 126 else struct.pack(
            "!BBH", 0x82, 0x80 | 126, size)
        # Masked with zeroes, which changes nothing.
        self.sock.sendall(head + bytes(4) + payload)

    def receive(self):
        """(channel, bytes), or None at the end."""
        head = self.file.read(2)
        if len(head) < 2 or head[0] & 15 == 8:
            return None
        size = head[1] & 127
        if size == 126:
            size = struct.unpack("!H", self.file.read(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", self.file.read(8))[0]
        data = self.file.read(size)
        return (data[0], data[1:]) if data else (-1, b"")

    def until(self, channel, enough):
        """Bytes of the channel till enough(bytes) or the end."""
        got = b""
        while not enough(got):
            frame = self.receive()
            if frame is None:
                break
            if frame[0] == channel:
                got += frame[1]
        return got

    def close(self):
        self.file.close()
        self.sock.close()


class Client:
    # Processes of a container by themselves, as kubelets ask; SHARED: all of the pod's together.
    POD_NETWORK = pack((2, 1))
    HOST_NETWORK = pack((1, 2), (2, 1))
    SHARED = pack((1, 2))
    RUNNING, EXITED = 1, 2

    def __init__(self, address):
        self.channel = grpc.insecure_channel("unix://" + address)
        self.serial = 0

    def call(self, method, request, timeout=180):
        fn = self.channel.unary_unary("/runtime.v1.RuntimeService/" + method)
        return unpack(fn(request, timeout=timeout))

    def ready(self):
        try:
            return bool(self.call("Version", b"", 5))
        except grpc.RpcError:
            return False

    def pod_config(self, name, logs, options=HOST_NETWORK):
        self.serial += 1
        return pack((1, pack((1, name), (2, f"uid-{name}-{self.serial}"), (3, "default"), (4, 1))),
                    (2, "pod"), (3, logs), (8, pack((2, pack((1, options))))))

    def run_pod(self, config, handler=""):
        return text(self.call("RunPodSandbox", pack((1, config), (2, handler))), 1)

    def create(self, pod, pod_config, name, image, command, **more):
        resources = [(n, more[k]) for n, k in ((1, "period"), (2, "quota"), (4, "memory")) if k in more]
        linux = pack((1, pack(*resources)), (2, pack((3, more.get("spaces", self.HOST_NETWORK)))))
        config = pack((1, pack((1, name))), (2, pack((1, image))), (3, list(command)),
                      (7, more.get("mounts", [])), (11, f"{name}.log"), (15, linux))
        return text(self.call("CreateContainer", pack((1, pod), (2, config), (3, pod_config))), 1)

    def start(self, cid):
        self.call("StartContainer", pack((1, cid)))

    def stop(self, cid, timeout=1):
        self.call("StopContainer", pack((1, cid), (2, timeout)))

    def remove(self, cid):
        self.call("RemoveContainer", pack((1, cid)))

    def exec_sync(self, cid, command, timeout=0):
        r = self.call("ExecSync", pack((1, cid), (2, list(command)), (3, timeout)))
        return r.get(3, [0])[0], r.get(1, [b""])[0].decode(), r.get(2, [b""])[0].decode()

    def status(self, cid):
        """(state, exit code)"""
        s = unpack(self.call("ContainerStatus", pack((1, cid)))[1][0])
        return s.get(3, [0])[0], s.get(7, [0])[0]

    def stats(self, cid):
        """(CPU nanoseconds, bytes of memory)"""
        s = unpack(self.call("ContainerStats", pack((1, cid)))[1][0])

        def value(number):
            return unpack(unpack(s[number][0])[2][0]).get(1, [0])[0]
        return value(2), value(3)

    def update(self, cid, **more):
        resources = [(n, more[k]) for n, k in ((1, "period"), (2, "quota"), (4, "memory")) if k in more]
        self.call("UpdateContainerResources", pack((1, cid), (2, pack(*resources))))

    def reason(self, cid):
        return text(unpack(self.call("ContainerStatus", pack((1, cid)))[1][0]), 10)

    def stop_pod(self, pod):
        self.call("StopPodSandbox", pack((1, pod)))

    def remove_pod(self, pod):
        self.call("RemovePodSandbox", pack((1, pod)))

    def pod_address(self, pod):
        s = unpack(self.call("PodSandboxStatus", pack((1, pod)))[1][0])
        return text(unpack(s[5][0]), 1)

    def exec_url(self, cid, command, tty=False):
        return text(self.call("Exec", pack((1, cid), (2, list(command)), (3, tty), (4, True),
                                           (5, True), (6, not tty))), 1)

    def port_forward_url(self, pod, port):
        return text(self.call("PortForward", pack((1, pod), (2, port))), 1) + f"?port={port}"

    def pod_netns(self, pod):
        """Its network namespace on the host: a path."""
        r = self.call("PodSandboxStatus", pack((1, pod), (2, True)))
        info = next(unpack(entry) for entry in r[2] if text(unpack(entry), 1) == "info")
        spaces = json.loads(text(info, 2))["runtimeSpec"]["linux"]["namespaces"]
        return next(n["path"] for n in spaces if n["type"] == "network")
