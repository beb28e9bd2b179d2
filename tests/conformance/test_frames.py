"""RFC 6455 under both servers, by the catalogue of the Autobahn test suite: what a client may send, and what it may not."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from tests.conformance.peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    LARGEST,
    PING,
    PONG,
    TEXT,
    Got,
    Peer,
    Server,
    ask,
    closing,
    frame,
)

PROTOCOL_ERROR, NOT_UTF8, TOO_BIG = 1002, 1007, 1009


def piecewise(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def fragments(payload: bytes, size: int, opcode: int = TEXT) -> list[bytes]:
    """A message in frames of so many bytes."""
    pieces = piecewise(payload, size)
    last = len(pieces) - 1
    return [frame(opcode if at == 0 else CONTINUATION, piece, fin=at == last) for at, piece in enumerate(pieces)]


def fails(server: Server, code: int, *pieces: bytes) -> None:
    """These bytes end the connection with this code, with the server's hanging up, and with nothing said before."""
    with Peer(server.port).greeted() as peer:
        peer.send(*pieces)
        before, close = peer.end()
        assert close is not None, "the server ended the connection without a close frame"
        assert (before, close.code) == ([], code), close


# 1 Framing


@pytest.mark.parametrize("size", [0, 125, 126, 127, 128, 65535, 65536, LARGEST])
@pytest.mark.parametrize("pace", ["at once", "in packets"])
def test_text_of_any_size_is_taken_however_it_is_chopped(server: Server, size: int, pace: str) -> None:
    with Peer(server.port).greeted() as peer:
        whole = frame(TEXT, ask(size, size))
        peer.send(*(piecewise(whole, 997 if size > 1000 else 1) if pace == "in packets" else [whole]))
        assert peer.message()["id"] == size


@pytest.mark.parametrize("size", [0, 125, 126, 65536])
def test_binary_messages_are_answered_as_what_they_are(server: Server, size: int) -> None:
    with Peer(server.port).greeted() as peer:
        peer.send(frame(BINARY, bytes(size)))
        assert peer.message()["name"] == "not_text"
        assert peer.alive()


# 2 Pings and pongs


@pytest.mark.parametrize("payload", [b"", b"hello", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125])
@pytest.mark.parametrize("size", [1, 1000])
def test_a_ping_comes_back_as_it_was(server: Server, payload: bytes, size: int) -> None:
    with Peer(server.port).greeted() as peer:
        peer.send(*piecewise(frame(PING, payload), size))
        assert peer.heard() == Got(PONG, payload)


def test_pings_are_answered_in_their_order(server: Server) -> None:
    with Peer(server.port).greeted() as peer:
        peer.send(b"".join(frame(PING, b"%d" % number) for number in range(10)))
        assert [peer.heard() for _ in range(10)] == [Got(PONG, b"%d" % number) for number in range(10)]


@pytest.mark.parametrize("payload", [b"", b"unsolicited", b"\x00" * 125])
def test_a_pong_that_nobody_asked_for_is_ignored(server: Server, payload: bytes) -> None:
    with Peer(server.port).greeted() as peer:
        peer.send(frame(PONG, payload), frame(PING, b"my own"))
        assert peer.heard() == Got(PONG, b"my own")
        assert peer.alive()


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_a_control_frame_may_not_be_long(server: Server, opcode: int) -> None:
    fails(server, PROTOCOL_ERROR, frame(opcode, b"\x03\xe8" + b"x" * 124))


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_a_control_frame_may_not_be_fragmented(server: Server, opcode: int) -> None:
    fails(server, PROTOCOL_ERROR, frame(opcode, b"\x03\xe8", fin=False), frame(CONTINUATION, b"x"))


# 3 Reserved bits, 4 opcodes, 5.1 masks


@pytest.mark.parametrize("reserved", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, CLOSE])
def test_reserved_bits_mean_nothing_here(server: Server, reserved: int, opcode: int) -> None:
    fails(server, PROTOCOL_ERROR, frame(opcode, b"\x03\xe8", reserved=reserved))


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("payload", [b"", b"reserved opcode"])
def test_reserved_opcodes_mean_nothing(server: Server, opcode: int, payload: bytes) -> None:
    fails(server, PROTOCOL_ERROR, frame(opcode, payload), frame(PING))


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, CLOSE])
def test_a_client_masks_its_frames(server: Server, opcode: int) -> None:
    fails(server, PROTOCOL_ERROR, frame(opcode, b"\x03\xe8", mask=None))


# 5 Fragments


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("packets", ["one", "one each", "one a byte"])
def test_a_message_may_come_in_fragments(server: Server, size: int, packets: str) -> None:
    with Peer(server.port).greeted() as peer:
        frames = fragments(ask("in pieces"), size)
        joined = b"".join(frames)
        peer.send(*{"one": [joined], "one each": frames, "one a byte": piecewise(joined, 1)}[packets])
        assert peer.message()["id"] == "in pieces"
        assert peer.alive()


def test_a_large_message_may_come_in_many_fragments_and_empty_ones(server: Server) -> None:
    with Peer(server.port).greeted() as peer:
        first, *rest, last = fragments(ask("many", LARGEST), 100)
        empty = frame(CONTINUATION, fin=False)
        peer.send(first + empty + empty.join(rest) + last)
        assert peer.message()["id"] == "many"


def test_a_ping_between_fragments_is_answered_before_the_message(server: Server) -> None:
    with Peer(server.port).greeted() as peer:
        first, second, *rest = fragments(ask("interrupted"), 5)
        peer.send(first, frame(PING, b"one"))
        assert peer.heard() == Got(PONG, b"one")
        peer.send(second, frame(PING, b"two") + frame(PONG, b"nobody asked"))
        assert peer.heard() == Got(PONG, b"two")
        peer.send(*rest)
        assert peer.message()["id"] == "interrupted"


@pytest.mark.parametrize("fin", [True, False])
def test_nothing_to_continue_is_an_error(server: Server, fin: bool) -> None:
    fails(server, PROTOCOL_ERROR, frame(CONTINUATION, b"of what?", fin=fin), *fragments(ask("after"), 5))


def test_nothing_to_continue_after_a_whole_message_is_an_error(server: Server) -> None:
    with Peer(server.port).greeted() as peer:
        peer.send(*fragments(ask("whole"), 5))
        assert peer.message()["id"] == "whole"
        peer.send(frame(CONTINUATION, b"more"))
        before, close = peer.end()
        assert close is not None
        assert (before, close.code) == ([], PROTOCOL_ERROR)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_inside_another_is_an_error(server: Server, opcode: int) -> None:
    first, *_ = fragments(ask("outer"), 5)
    fails(server, PROTOCOL_ERROR, first, frame(opcode, ask("inner")))


# 6 UTF-8


@pytest.mark.parametrize(
    "text",
    ["κόσμε", "\x00", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufffd", "\uffff", "\U00010000", "\U0010ffff"],
)
def test_every_character_comes_back(server: Server, text: str) -> None:
    with Peer(server.port).greeted() as peer:
        peer.send(b"".join(fragments(ask(text), 1)), frame(TEXT, ask(text)))
        assert [peer.message()["id"], peer.message()["id"]] == [text, text]


@pytest.mark.parametrize(
    "bad",
    [
        b"\x80",
        b"\xbf\xbf",
        b"\xc0\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        b"\xce",
        b"\xe2\x82",
        b"\xf0\x9d\x84",
    ],
    ids=bytes.hex,
)
@pytest.mark.parametrize("way", ["one frame", "a frame a byte", "in its midst"])
def test_text_that_is_not_utf8_ends_the_connection(server: Server, bad: bytes, way: str) -> None:
    if way == "in its midst":
        bad = b'{"action":"ping","id":"' + bad + b'"}'
    fails(server, NOT_UTF8, *([frame(TEXT, bad)] if way == "one frame" else [b"".join(fragments(bad, 1))]))


def test_what_is_not_utf8_in_one_fragment_alone_is_text_in_the_whole(server: Server) -> None:
    with Peer(server.port).greeted() as peer:
        start, end = ask("€").split("€".encode())
        peer.send(
            frame(TEXT, start + b"\xe2", fin=False),
            frame(PING, b"\xff"),
            frame(CONTINUATION, b"\x82", fin=False),
            frame(CONTINUATION, b"\xac" + end),
        )
        assert peer.heard() == Got(PONG, b"\xff")
        assert peer.message()["id"] == "€"


# 7 The end


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
@pytest.mark.parametrize("reason", [b"", b"because", b"*" * 123])
def test_a_goodbye_is_answered_with_its_own_code(server: Server, code: int, reason: bytes) -> None:
    with Peer(server.port).greeted() as peer:
        peer.send(closing(code, reason))
        assert peer.end() == ([], Got(CLOSE, code.to_bytes(2, "big") + reason))


def test_a_goodbye_without_a_code_is_answered_without_one(server: Server) -> None:
    with Peer(server.port).greeted() as peer:
        peer.send(frame(CLOSE))
        assert peer.end() == ([], Got(CLOSE, b""))


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535])
def test_codes_that_nobody_may_send_are_an_error(server: Server, code: int) -> None:
    fails(server, PROTOCOL_ERROR, closing(code))


def test_half_a_code_is_an_error(server: Server) -> None:
    fails(server, PROTOCOL_ERROR, frame(CLOSE, b"\x03"))


def test_a_reason_that_is_not_utf8_is_an_error(server: Server) -> None:
    fails(server, NOT_UTF8, closing(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80"))


@pytest.mark.parametrize("after", [frame(TEXT, ask(1)), frame(PING), closing(1000), closing(4000), b"\xff" * 1000])
@pytest.mark.parametrize("packets", [1, 2])
def test_nothing_is_heard_after_a_goodbye(server: Server, after: bytes, packets: int) -> None:
    with Peer(server.port).greeted() as peer:
        goodbye = closing(1000)
        peer.send(*([goodbye + after] if packets == 1 else [goodbye]))
        before, close = peer.end() if packets == 1 else ([], peer.heard())
        if packets == 2:
            peer.quietly(after)
        assert (before, close) == ([], Got(CLOSE, b"\x03\xe8"))


def test_a_goodbye_within_a_message_ends_the_connection(server: Server) -> None:
    with Peer(server.port).greeted() as peer:
        peer.send(fragments(ask("never whole"), 5)[0] + closing(1000))
        assert peer.end() == ([], Got(CLOSE, b"\x03\xe8"))


def test_a_goodbye_is_answered_while_data_flows(server: Server) -> None:
    with Peer(server.port).greeted() as peer:
        peer.send(b"".join(frame(TEXT, ask(number)) for number in range(300)))
        assert peer.message()["id"] == 0
        peer.send(closing(1000))
        before, close = peer.end()
        assert close == Got(CLOSE, b"\x03\xe8")
        assert [json.loads(got.payload)["id"] for got in before] == list(range(1, len(before) + 1))


# 9 Limits


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_frame_that_is_too_large_is_refused_by_its_head(server: Server, opcode: int) -> None:
    fails(server, TOO_BIG, frame(opcode, b"the rest never comes", length=b"\x7f" + (LARGEST + 1).to_bytes(8, "big")))


def test_fragments_that_are_too_much_together_are_refused(server: Server) -> None:
    fails(server, TOO_BIG, b"".join(fragments(ask("too much", LARGEST + 1), 4000)))


def test_a_length_that_no_frame_may_have_is_refused(server: Server) -> None:
    with Peer(server.port).greeted() as peer:
        peer.send(frame(TEXT, b"", length=b"\x7f" + b"\xff" * 8))
        before, close = peer.end()
        assert close is not None
        assert not before
        assert close.code in (PROTOCOL_ERROR, TOO_BIG)


def test_a_client_that_goes_on_after_its_error_still_reads_the_reason(server: Server) -> None:
    with Peer(server.port).greeted() as peer:
        peer.send(frame(TEXT, bytes(LARGEST + 1)), frame(TEXT, bytes(LARGEST)) * 20)
        before, close = peer.end()
        assert close is not None
        assert (before, close.code) == ([], TOO_BIG)


# Silence


def test_a_client_that_falls_silent_is_given_up(server: Server) -> None:
    """Wherever in a message: it answers no ping, and nothing but the server's own wish ends the connection."""
    half = frame(TEXT, bytes(1000))[:500]
    with ExitStack() as open_ones:
        peers = []
        for piece in (b"", b"\x81", b"\x81\xfe\x10", half, frame(TEXT, b"{", fin=False)):
            peer = open_ones.enter_context(Peer(server.port)).greeted()
            peer.dead = True
            peer.send(piece)
            peers.append(peer)
        for peer in peers:
            assert peer.end()[0] == []


def test_a_client_that_answers_pings_may_say_nothing(server: Server) -> None:
    with Peer(server.port).greeted() as peer:
        pings = 0
        while pings < 3:
            got = peer.next()
            assert got is not None, "the server gave it up"
            assert got.opcode in (PING, TEXT)
            pings += got.opcode == PING
        assert peer.alive()
