"""A small client of the Container Runtime Interface: gRPC with messages packed here by field number."""
import grpc


def varint(n):
    out = bytearray()
    n &= (1 << 64) - 1
    while True:
        out.append(n & 127 | (128 if n > 127 else 0))
        n >>= 7
        if not n:
            return bytes(out)


def pack(*fields):
    """Message of (number, value): int and bool as varint, str, bytes; dict as map<string, string>;
    a list is a repeated field."""
    out = b""
    for number, value in fields:
        if isinstance(value, dict):
            value = [pack((1, k), (2, v)) for k, v in value.items()]
        for v in value if isinstance(value, list) else [value]:
            if isinstance(v, (bool, int)):
                out += varint(number << 3) + varint(int(v))
            else:
                data = v.encode() if isinstance(v, str) else v
                out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def unpack(data):
    """{number: [values]} with bytes for what has a length."""
    out, i = {}, 0

    def take():
        nonlocal i
        n = shift = 0
        while True:
            b = data[i]
            i += 1
            n |= (b & 127) << shift
            shift += 7
            if b < 128:
                return n
    while i < len(data):
        key = take()
        if key & 7 == 0:
            value = take()
        elif key & 7 == 2:
            size = take()
            value = data[i:i + size]
            i += size
        else:
            size = 8 if key & 7 == 1 else 4
            value = data[i:i + size]
            i += size
        out.setdefault(key >> 3, []).append(value)
    return out


def text(message, number):
    return message.get(number, [b""])[0].decode()


class Client:
    HOST_NETWORK = pack((1, 2))
    RUNNING, EXITED = 1, 2

    def __init__(self, address):
        self.channel = grpc.insecure_channel("unix://" + address)
        self.serial = 0

    def call(self, method, request, timeout=60):
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
        linux = pack((1, pack((4, more["memory"])))) if "memory" in more else b""
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

    def stop_pod(self, pod):
        self.call("StopPodSandbox", pack((1, pod)))

    def remove_pod(self, pod):
        self.call("RemovePodSandbox", pack((1, pod)))
