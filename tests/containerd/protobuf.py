"""Messages of Protocol Buffers, packed and unpacked by field number."""


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
