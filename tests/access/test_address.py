"""Where requests come from, and networks."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from pydantic import ValidationError

from argus.access import address
from argus.config import Config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("::1", "::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        (' "[2001:db8::1]" ', "2001:db8::1"),
    ],
)
def test_an_address_is_read_in_every_form_that_servers_and_proxies_write(text: str, expected: str) -> None:
    assert str(address.parse_address(text)) == expected


@pytest.mark.parametrize("text", ["", "unknown", "_hidden", "300.1.1.1", "1.2.3", "::g", "/run/argus.sock"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert address.parse_address(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("192.0.2.7", "192.0.2.7/32"),
        (" 2001:db8::/32 ", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_a_network_is_read_in_cidr_notation(text: str, expected: str) -> None:
    assert str(address.parse_network(text)) == expected


def test_a_network_with_bits_beyond_its_mask_is_refused_with_the_network_that_was_meant() -> None:
    with pytest.raises(address.HostBits) as caught:
        address.parse_network("10.1.2.3/8")
    assert str(caught.value.network) == "10.0.0.0/8"


@pytest.mark.parametrize("text", ["", "example.org", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0-10.0.0.9"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        address.parse_network(text)


TRUSTED = (ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),  # the peer is no trusted proxy: it may claim anything
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("2001:db8:1::5", "2001:db8::9", "2001:db8::9"),
        ("10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),  # what the client itself wrote stays out
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:1234", "203.0.113.9"),
        ("10.0.0.1", "unknown", None),
        ("10.0.0.1", "garbage, 203.0.113.9", "203.0.113.9"),
        (None, "203.0.113.9", None),
        ("", "203.0.113.9", None),
    ],
)
def test_only_trusted_proxies_are_believed(peer: str | None, forwarded: str, expected: str | None) -> None:
    assert address.origin(peer, forwarded, TRUSTED) == expected


def scope(client: Any, *forwarded: str) -> dict[str, Any]:
    return {"client": client, "headers": [(b"x-forwarded-for", value.encode()) for value in forwarded]}


def test_a_scope_with_several_forwarded_headers_is_read_as_one() -> None:
    assert address.scope_origin(scope(("10.0.0.1", 1), "198.51.100.1", "203.0.113.9, 10.0.0.2"), TRUSTED) == "203.0.113.9"


@pytest.mark.parametrize("client", [None, ("", 0), ("/run/argus.sock", 0)])
def test_a_unix_socket_has_no_address(client: Any) -> None:
    assert address.scope_origin(scope(client, "203.0.113.9"), TRUSTED) is None
    assert address.scope_origin(scope(client, "203.0.113.9"), ()) is None


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    assert address.scope_origin(scope(("::ffff:192.0.2.1", 1), "203.0.113.9"), ()) == "192.0.2.1"


def test_a_machine_cannot_leave_its_neighbourhood_by_changing_its_ipv6_address() -> None:
    assert address.neighbourhood("2001:db8::1") == address.neighbourhood("2001:db8::ffff:1")
    assert address.neighbourhood("2001:db8:0:1::1") != address.neighbourhood("2001:db8::1")
    assert address.neighbourhood("192.0.2.1") != address.neighbourhood("192.0.2.2")
    assert address.neighbourhood(None) == address.neighbourhood(None)


@pytest.mark.parametrize("wrong", ["proxy.example.org", "10.0.0.1/8"])
def test_a_trusted_proxy_that_is_no_network_stops_the_start(wrong: str) -> None:
    with pytest.raises(ValidationError):
        Config(trusted_proxies=wrong)
    assert Config(trusted_proxies="10.0.0.0/8, ::1").trusted_proxies == ("10.0.0.0/8", "::1/128")
