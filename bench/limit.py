"""The machine's own limit: the hub's very bytes, written to as many sockets by a plain loop, and read by a plain loop.

Two processes, as for the hub: the writer on the server's processor, the reader on the client's.
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys
import time
from typing import Any

import msgspec

from bench.machine import pin
from bench.market import choose, sweep


def frame(bodies: list[bytes]) -> bytes:
    """A WebSocket text frame with a data message of these quotes, as a connection receives it."""
    payload = b'{"type":"data","feed":"main","epoch":1760000000000,"seq":1000,"data":[%b]}' % b",".join(
        body[:-1] + b',"seq":1000}' for body in bodies
    )
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x81, size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x81, 126, size)
    else:
        head = struct.pack("!BBQ", 0x81, 127, size)
    return head + payload


def write(port: int, connections: int, each: int | None, seconds: float) -> dict[str, Any]:
    """Connect, then write every connection its frame, round after round, for so long."""
    bodies = sweep(0)
    everything = frame(list(bodies.values()))
    chosen = choose(connections, each)
    frames = [everything if symbols is None else frame([bodies[symbol] for symbol in symbols]) for symbols in chosen]
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in frames]
    for one in sockets:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pairs = list(zip(sockets, frames, strict=True))
    rounds = 0
    cpu, start = time.process_time(), time.perf_counter()
    while time.perf_counter() - start < seconds:
        for one, data in pairs:
            one.sendall(data)
        rounds += 1
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    for one in sockets:
        one.close()
    quotes = rounds * sum(len(bodies) if symbols is None else len(symbols) for symbols in chosen)
    return {"quotes_per_second": quotes / elapsed, "cpu_per_million": cpu / quotes * 1e6, "bytes": rounds * sum(map(len, frames))}


def read(listener: socket.socket, connections: int) -> int:
    """Take the connections and read all they send until they close; the bytes read."""
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        peer, _address = listener.accept()
        peer.setblocking(False)
        selector.register(peer, selectors.EVENT_READ)
    buffer = bytearray(1 << 20)
    total = 0
    while selector.get_map():
        for key, _mask in selector.select():
            peer = key.fileobj
            assert isinstance(peer, socket.socket)
            size = peer.recv_into(buffer)
            if size == 0:
                selector.unregister(peer)
                peer.close()
            total += size
    return total


def main() -> None:
    """``python -m bench.limit PORT CONNECTIONS EACH SECONDS CORE``: the writer; EACH 0 is the whole market."""
    port, connections, each, seconds, core = sys.argv[1:]
    pin(int(core))
    result = write(int(port), int(connections), int(each) or None, float(seconds))
    sys.stdout.write(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
