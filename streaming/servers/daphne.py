"""Daphne's WebSocket protocol with back-pressure: raw frames, bounded buffers, every close code, and an end for mute clients.

Daphne's own ``send`` never waits (one client that never reads: 54 -> 227 MB), refuses messages above its limit for incoming
ones, and close codes such as 1012 and 1013; and it answers a handshake that is refused with 403, whatever the reason. As under
uvicorn, the hub gets a ``RawWire`` in the scope's extensions. Where Autobahn below it deviates from RFC 6455 it is put right:
``tests/conformance`` holds both servers to it.
"""

from __future__ import annotations

import socket
from http import HTTPStatus
from typing import Any
from weakref import WeakKeyDictionary

from daphne.server import Server
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from twisted.internet import reactor

from argus.config import config
from argus.line import EXTENSION as LINE
from argus.line import GRACE, PIECE, Line
from streaming.frame import Frame
from streaming.wire import EXTENSION, HIGH_WATER, RawWire

MAX_UNREAD = 32
"""Messages of a client that wait for the application before its socket is read no further."""
UNREAD_CHECK = 0.05
"""Seconds between two looks whether they have been taken."""

_create_application = Server.create_application
_looks: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""A connection's transport -> the call that will look whether its client reads."""


class ArgusDaphneProtocol(WebSocketProtocol):  # type: ignore[misc]
    """One WebSocket connection. The transport's streaming producer is the protocol itself, which tells the wire."""

    wire: RawWire
    _deaf = False
    _refusal: dict[str, Any]

    def onConnect(self, request: Any) -> Any:
        """Set the limits before the application is made."""
        self.wire = RawWire(self)
        # These hold for incoming messages; what goes out through the wire is not looked at.
        self.maxMessagePayloadSize = self.maxFramePayloadSize = config.max_message_size
        self.failByDrop = False
        self.echoCloseCodeReason = True
        self.closeHandshakeTimeout = config.send_timeout
        return super().onConnect(request)

    def processHandshake(self) -> None:
        """Speak the one version that there is; Autobahn also speaks the draft 8."""
        self.versions = [13]
        super().processHandshake()

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        """Another version is told ours with 426 (RFC 6455, 4.4); no other refusal has headers."""
        super().failHandshake(reason, 426 if responseHeaders else code, responseHeaders)

    def onOpen(self) -> None:
        """Take the transport's water marks over from Daphne's HTTP channel."""
        super().onOpen()
        transport = self.transport
        transport.unregisterProducer()
        transport.registerProducer(self, True)
        transport.bufferSize = HIGH_WATER
        if hasattr(transport, "getHandle"):
            transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, HIGH_WATER)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Hand it to the application, and read no further from a client that is far ahead of it."""
        super().onMessage(payload, isBinary)
        if self.application_queue.qsize() >= MAX_UNREAD and not self._deaf:
            self._deaf = True
            self.transport.pauseProducing()
            self._listen_again()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """The transport is gone, and with it all that was to be sent."""
        if hasattr(self, "wire"):
            self.wire.lost()
        super().onClose(wasClean, code, reason)

    def processData(self) -> bool:
        """Nothing is read any more from a client that has broken the protocol."""
        if self.failedByMe:
            self.data = b""
            return False
        return bool(super().processData())

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        """As Autobahn, and the hub writes nothing behind it."""
        super().sendCloseFrame(code, reasonUtf8, isReply)
        self.wire.lost()

    def _fail_connection(self, code: int, reason: str) -> None:
        """Say why (1002, 1007, 1009) and go on discarding until the client is gone.

        Autobahn goes on reading frames in search of the answer, takes the faulty one for it, and resets a client that has not
        read the reason.
        """
        super()._fail_connection(code, reason)
        if self._deaf:
            self._deaf = False
            self.transport.resumeProducing()

    def _protocol_violation(self, reason: str) -> bool:
        super()._protocol_violation(reason)
        return True

    def _invalid_payload(self, reason: str) -> bool:
        super()._invalid_payload(reason)
        return True

    def serverSend(self, content: Any, binary: bool = False) -> None:
        """As Daphne, but text of any length."""
        if binary or self.state != self.STATE_OPEN:
            super().serverSend(content, binary)
        else:
            self.wire.write(Frame(content.encode()))

    def serverClose(self, code: int | None = None) -> None:
        """As Daphne, but with every code that there is."""
        self.close_orderly(1000 if code is None else code, "")

    def handle_reply(self, message: dict[str, Any]) -> None:
        """As Daphne, and an HTTP answer to the handshake, in two messages."""
        if message["type"] == "websocket.http.response.start":
            self._refusal = message
        elif message["type"] == "websocket.http.response.body":
            self._refuse(self._refusal["status"], self._refusal["headers"], message.get("body", b""))
        else:
            super().handle_reply(message)

    def _refuse(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        if self.state != self.STATE_CONNECTING:
            return
        # Never fired: the answer is given here.
        del self.handshake_deferred
        self.server.protocol_disconnected(self)
        lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode()), *(b"%s: %s" % header for header in headers)]
        if not any(name.lower() == b"content-length" for name, _ in headers):
            lines.append(b"content-length: %d" % len(body))
        self.sendData(b"\r\n".join([*lines, b"connection: close", b"", body]))
        self.dropConnection(abort=False)

    def pauseProducing(self) -> None:
        """The transport's buffer is above its high-water mark."""
        self.wire.pause()

    def resumeProducing(self) -> None:
        """The transport's buffer is empty again."""
        self.wire.resume()

    def stopProducing(self) -> None:
        """The transport is gone."""
        self.wire.lost()

    def write_parts(self, parts: tuple[bytes, ...]) -> None:
        """See ``RawSocket``."""
        self.transport.writeSequence(parts)

    def unsent(self) -> int:
        """See ``RawSocket``."""
        return _unsent(self.transport)

    def close_orderly(self, code: int, reason: str) -> None:
        """See ``RawSocket``. Autobahn drops the connection if the answer does not come in time."""
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(code=code, reasonUtf8=reason.encode()[:123], isReply=False)

    def abort(self) -> None:
        """See ``RawSocket``."""
        self.dropConnection(abort=True)

    def _listen_again(self) -> None:
        if self.state == self.STATE_CLOSED:
            return
        if self.application_queue.empty():
            self._deaf = False
            self.transport.resumeProducing()
        else:
            reactor.callLater(UNREAD_CHECK, self._listen_again)  # type: ignore[arg-type]


def _unsent(transport: Any) -> int:
    return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)


def _watch_unsent(transport: Any) -> None:
    """End an HTTP connection where no ``PIECE`` of what an answer has left unsent is taken in time, as under uvicorn.

    For the last ``PIECE`` there is Twisted's own time.
    """
    before = _looks.get(transport)
    if before is not None and before.active():
        before.cancel()
    if (unsent := _unsent(transport)) > PIECE:
        _looks[transport] = reactor.callLater(config.send_timeout + GRACE, _look, transport, unsent)  # type: ignore[arg-type]


def _look(transport: Any, before: int) -> None:
    if _unsent(transport) > before - PIECE:
        transport.abortConnection()
    else:
        _watch_unsent(transport)


def _with_wire(server: Server, protocol: Any, scope: dict[str, Any]) -> Any:
    if isinstance(protocol, ArgusDaphneProtocol):
        scope["extensions"] = {EXTENSION: protocol.wire, "websocket.http.response": {}}
    else:
        transport = protocol.channel.transport
        scope["extensions"] = {LINE: Line(transport.abortConnection, lambda: _unsent(transport))}
        # An answer that never ends because its client goes away leaves nothing to watch.
        protocol.notifyFinish().addCallbacks(lambda _: _watch_unsent(transport), lambda _: None)
    return _create_application(server, protocol, scope)


def install() -> None:
    """Make Daphne use it. Where another server runs this changes nothing: nobody but Daphne makes these objects."""
    WebSocketFactory.protocol = ArgusDaphneProtocol
    Server.create_application = _with_wire
