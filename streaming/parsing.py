"""From a client's message, JSON text or MessagePack, to a typed action, or to what is wrong with it.

Sans-I/O; nothing here raises on anything that a client can send.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from argus.errors import BAD_JSON, INVALID_ARGUMENT, NOT_TEXT, UNKNOWN_ACTION, ArgusError
from marketdata.types import DataType
from streaming.protocol import ACTIONS, AnyAction, RequestId, Unreadable
from streaming.selection import Frequency

_PARAMETER = re.compile(r" - at `\$\.(\w+)[^`]*`$| field `([^`]{1,64})`$")
_CHOICES: Mapping[str, list[str]] = {"data_types": [*DataType], "update_frequency": [*Frequency]}


class _Envelope(Struct):
    id: Raw | UnsetType = UNSET
    action: Raw | UnsetType = UNSET


class _Format:
    """One way in which a message is written."""

    def __init__(self, name: str, what: str, decoder: Any) -> None:
        self.name = name
        self.what = what
        self.actions = decoder(AnyAction)
        self.envelopes = decoder(_Envelope)
        self.ids = decoder(RequestId | None)
        self.strings = decoder(str)


_JSON: Final = _Format("JSON", "a JSON object", msgspec.json.Decoder)
_PACKED: Final = _Format("MessagePack", "a MessagePack map", msgspec.msgpack.Decoder)


def parse(data: str | bytes, *, packed: bool = False) -> AnyAction | Unreadable:
    """The action in a message, or what is wrong with it. Bytes stand for a binary message, which is MessagePack where the
    connection speaks that (``packed``); text is JSON everywhere."""
    if isinstance(data, bytes) and not packed:
        return Unreadable(None, ArgusError(NOT_TEXT))
    form = _PACKED if isinstance(data, bytes) else _JSON
    try:
        action: AnyAction = form.actions.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        return _explain(form, data, str(error))
    return action


def _explain(form: _Format, data: str | bytes, why: str) -> Unreadable:
    try:
        envelope = form.envelopes.decode(data)
    except msgspec.ValidationError:
        return Unreadable(None, ArgusError(BAD_JSON, f"The message is {form.name}, but not {form.what.partition(' ')[2]}."))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        return Unreadable(None, ArgusError(BAD_JSON, f"The message is not {form.what}: {error}."))
    try:
        id = None if isinstance(envelope.id, UnsetType) else form.ids.decode(envelope.id)
    except (msgspec.MsgspecError, UnicodeError) as error:
        return Unreadable(None, invalid("id", str(error)))
    return Unreadable(id, _fault(form, envelope.action, why))


def _fault(form: _Format, action: Raw | UnsetType, why: str) -> ArgusError:
    if isinstance(action, UnsetType):
        return invalid("action", "It is missing")
    try:
        name = form.strings.decode(action)
    except (msgspec.MsgspecError, UnicodeError) as error:
        return invalid("action", str(error))
    if name not in ACTIONS:
        return ArgusError(UNKNOWN_ACTION, f"The action {name[:64]!r} is not known. Known: {', '.join(ACTIONS)}.", actions=ACTIONS)
    found = _PARAMETER.search(why)
    return invalid((found.group(1) or found.group(2)) if found else "action", why)


def invalid(parameter: str, why: str) -> ArgusError:
    """What is wrong with a parameter."""
    choices = _CHOICES.get(parameter)
    extra = {"allowed": choices} if choices else {}
    hint = f" Allowed: {', '.join(choices)}." if choices else ""
    if len(why) > 300:
        why = f"{why[:200]} ... {why[-80:]}"
    return ArgusError(INVALID_ARGUMENT, f"The parameter {parameter!r} is wrong: {why}.{hint}", parameter=parameter, **extra)
