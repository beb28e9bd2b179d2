"""Where a request comes from: the peer, or what a trusted proxy says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """The address in a text such as ``10.0.0.1``, ``10.0.0.1:80``, ``[::1]:80`` or ``fe80::1%eth0``; None if there is none.

    An IPv4 address inside an IPv6 one (``::ffff:10.0.0.1``, what a dual-stack socket reports) is that IPv4 address.
    """
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(maxsize=4096)
def canonical(text: str) -> str | None:
    """The address in a text, in the one way in which it is written; None if there is none."""
    address = parse_address(text)
    return None if address is None else str(address)


class HostBits(ValueError):
    """An address within a network was written where the network was meant."""

    def __init__(self, network: Network) -> None:
        super().__init__(f"the network is {network}")
        self.network = network


def parse_network(text: str) -> Network:
    """The network in CIDR notation, or a single address; an IPv4 network inside an IPv6 one is that IPv4 network.

    Raises HostBits where bits are set to the right of the mask, else ValueError.
    """
    text = text.strip()
    network = ip_network(text, strict=False)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        network = ip_network(f"{network.network_address.ipv4_mapped}/{network.prefixlen - 96}")
    if parse_address(text.partition("/")[0]) != network.network_address:
        raise HostBits(network)
    return network


def contains(networks: Iterable[Network], address: Address) -> bool:
    """Whether one of the networks has the address."""
    return any(address in network for network in networks)


def neighbourhood(text: str | None) -> str:
    """Who shares a fate with this address: itself, or its /64 of IPv6, within which one machine has all addresses."""
    address = parse_address(text) if text else None
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, 64), strict=False))
    return str(address)


def origin(peer: str | None, forwarded: str, trusted: Iterable[Network]) -> str | None:
    """The client's address: the peer, or the rightmost address in X-Forwarded-For that is no trusted proxy's own.

    Each proxy appends the address that it saw, so everything left of the first untrusted one is hearsay. None where the
    address is not known: on a Unix socket, and where a trusted proxy named something that is no address.
    """
    address = parse_address(peer) if peer else None
    if address is None:
        return None
    hops = [hop for hop in forwarded.split(",") if hop.strip()]
    while hops and contains(trusted, address):
        hop = parse_address(hops.pop())
        if hop is None:
            return None
        address = hop
    return str(address)


def scope_origin(scope: Mapping[str, Any], trusted: Iterable[Network]) -> str | None:
    """The client's address of an ASGI scope."""
    client = scope.get("client")
    peer = str(client[0]) if client else None
    if not trusted:
        return canonical(peer) if peer else None
    forwarded = ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for")
    return origin(peer, forwarded, trusted)
