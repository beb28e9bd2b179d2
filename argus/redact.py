"""What may never stand in a log is taken out here: keys, passwords, headers that carry them, addresses and names of people.

The rule is by name where there is a name (a field, a header, a query parameter) and by shape everywhere else, so it also
holds for texts that others wrote: exceptions, tracebacks, access lines. Addresses of our own side (where we listen, where
a terminal stands) are no personal data; they pass only under the field names in ``OWN_ADDRESS_FIELDS``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address

REDACTED = "[redacted]"
ADDRESS = "[address]"
EMAIL = "[email]"
MAX_TEXT = 16_000
"""Characters of one text that are kept: a log line must not become as large as a hostile message."""
MAX_ITEMS = 100
MAX_DEPTH = 6

_SECRET_NAMES = (
    r"proxy-authorization|authorization|x-api-key|api[_-]?key|set-cookie|cookie|csrf[_-]?token|csrfmiddlewaretoken|"
    r"session[_-]?id|session[_-]?key|secret[_-]?key|client[_-]?secret|access[_-]?token|refresh[_-]?token|"
    r"password\d?|passwd|passphrase|pwd|secret|token|ticket|signature|credentials?"
)
_SECRET_FIELD = re.compile(rf"(?:.*[._-])?(?:{_SECRET_NAMES})|key|session|digest", re.IGNORECASE)
_PERSONAL_FIELD = re.compile(
    r"(?:client|remote|peer|source_ip|user)?_?(?:ip|addr|address|host)|client|peer|x[_-](?:forwarded[_-]for|real[_-]ip)|forwarded|"
    r"e?mail|email_address|user_?name|(?:first|last|full)_name|phone|mobile|user_?agent|referr?er",
    re.IGNORECASE,
)
OWN_ADDRESS_FIELDS = frozenset({"terminal_address", "listen"})

_API_KEY = re.compile(r"argus_[A-Za-z0-9_-]{8,}")
_USERINFO = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^\s/@'\"]*:[^\s/'\"]*@|(?P<scheme2>\b[a-z][a-z0-9+.-]*://)[^\s/@'\"]+@", re.IGNORECASE
)
_BEARER = re.compile(r"\b(Bearer|bearer|BEARER|Basic)(?:\s+|%20|\+)[A-Za-z0-9._~+/=-]{6,}")
# name: value, name=value, "name": "value", (b'name', b'value'): quoted values to their quote ...
_NAMED_QUOTED = re.compile(
    rf"(?P<name>\b[\w.-]*?(?:{_SECRET_NAMES}|\b(?:key|session))\\*[\"']?\s*(?:[:=,]|=>)\s*b?)(?P<quote>\\*[\"'])(?P<value>.*?)(?P=quote)",
    re.IGNORECASE | re.DOTALL,
)
# ... a header's value to the end of its line, any other to the next separator.
_NAMED_HEADER = re.compile(
    r"(?P<name>\b(?:proxy-authorization|authorization|set-cookie|cookie|x-api-key)\s*:\s*)[^\r\n'\"\[][^\r\n'\"]*", re.IGNORECASE
)
_NAMED_BARE = re.compile(
    rf"(?P<name>\b[\w.-]*?(?:{_SECRET_NAMES})\s*(?:=|:|%3D)\s*)(?![\"'\[\\])[^\s&,;'\"\])}}]+", re.IGNORECASE
)
_QUERY_KEY = re.compile(r"(?P<name>[?&;](?:key|session)(?:=|%3D))[^\s&;'\"]*", re.IGNORECASE)
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w)(?::\d{1,5})?")
_IPV6 = re.compile(r"(?<![\w:.])\[?(?=[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:)[0-9A-Fa-f:.]{2,45}(?:%\w+)?(?:\]:\d{1,5}|\])?(?![\w:])")

_literals: list[str] = []


def never_log(secrets: Iterable[str]) -> None:
    """Take these very texts out of everything from now on: the secrets that this process itself holds."""
    for secret in secrets:
        if len(secret) >= 6 and secret not in _literals:
            _literals.append(secret)


def text(value: str, *, addresses: bool = False) -> str:
    """The text without secrets and personal data; with ``addresses`` network addresses may stay."""
    if len(value) > MAX_TEXT:
        value = f"{value[:MAX_TEXT]}... ({len(value)} characters)"
    for literal in _literals:
        value = value.replace(literal, REDACTED)
    value = _API_KEY.sub(REDACTED, value)
    value = _USERINFO.sub(rf"\g<scheme>{REDACTED}@", value)
    value = _NAMED_QUOTED.sub(rf"\g<name>\g<quote>{REDACTED}\g<quote>", value)
    value = _NAMED_HEADER.sub(rf"\g<name>{REDACTED}", value)
    value = _BEARER.sub(rf"\1 {REDACTED}", value)
    value = _NAMED_BARE.sub(rf"\g<name>{REDACTED}", value)
    value = _QUERY_KEY.sub(rf"\g<name>{REDACTED}", value)
    value = _EMAIL.sub(EMAIL, value)
    if not addresses:
        value = _IPV4.sub(_without_address, value)
        value = _IPV6.sub(_without_address, value)
    return value


def _without_address(found: re.Match[str]) -> str:
    """The mark in an address' place; what only looks like one, and what names no machine in particular, stays."""
    word = found[0]
    host = word[1:].partition("]")[0] if word.startswith("[") else word.rstrip(".")
    if word.count(".") == 3 and word.count(":") == 1:
        host = word.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return word
    return word if address.is_unspecified else ADDRESS


def clean(value: object, *, addresses: bool = False, depth: int = 0) -> object:
    """The value made of nothing but what JSON has, without secrets and personal data."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return text(value, addresses=addresses)
    if isinstance(value, bytes | bytearray | memoryview):
        return text(bytes(value[: MAX_TEXT + 1]).decode("utf-8", "replace"), addresses=addresses)
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            return {text(str(name)): field(str(name), item, depth=depth + 1) for name, item in list(value.items())[:MAX_ITEMS]}
        if isinstance(value, list | tuple | set | frozenset):
            return _sequence(value, addresses=addresses, depth=depth + 1)
    return text(str(value), addresses=addresses)


def _sequence(value: Iterable[object], *, addresses: bool, depth: int) -> list[object]:
    """A list; a pair whose first item is a secret's name (a header) loses its second."""
    items = list(value)[:MAX_ITEMS]
    if len(items) == 2 and isinstance(items[0], str | bytes):
        name = items[0].decode("latin-1") if isinstance(items[0], bytes) else items[0]
        return [clean(name), field(name, items[1], depth=depth)]
    return [clean(item, addresses=addresses, depth=depth) for item in items]


def field(name: str, value: object, *, depth: int = 0) -> object:
    """A named value: gone if its name says that it is a secret or belongs to a person."""
    if name in OWN_ADDRESS_FIELDS:
        return clean(value, addresses=True, depth=depth)
    if value in (None, "") or isinstance(value, bool):
        return value
    if _SECRET_FIELD.fullmatch(name) or _PERSONAL_FIELD.fullmatch(name):
        return REDACTED
    return clean(value, depth=depth)
