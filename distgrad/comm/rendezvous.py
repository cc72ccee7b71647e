"""How strangers become peers over TCP: a gate that knows a token, and a place to meet.

Every rank connects to the place of meeting, says under which address it listens, and learns
everyone's. Whoever starts the ranks keeps that place (``Rendezvous``); no rank need be special.
A connection that cannot prove the token is refused, one that says nothing is dropped, and neither
keeps anyone waiting.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import json
import os
import secrets
import selectors
import socket
import struct
import sys
import threading
import time
from typing import Any

from distgrad.comm.transport import name_ranks
from distgrad.core.errors import PeerLostError, UsageError

_GREETING = b"distgrd1"
_NONCE = 16
_PROOF = 32
_RANK = struct.Struct("<I")
_ANSWER = _RANK.size + _NONCE + _PROOF
_PATIENCE = 5.0  # seconds for one handshake
_PENDING = 256  # unproven connections at a time; the oldest go first


def new_token() -> str:
    """A fresh secret for one start of a job."""
    return secrets.token_hex(16)


class Gate:
    """A listening socket that lets in who can prove the token.

    Args:
        host: address to listen on.
        port: 0 takes a free one; the socket is kept, so that nobody else can get it.
        token: the secret of this start of the job.
    """

    def __init__(self, host: str, port: int, token: str) -> None:
        self._token = token.encode()
        self._socket = _listen(host, port)
        self._socket.setblocking(False)
        self.host, self.port = self._socket.getsockname()[:2]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        # By connection: our nonce, what it has said so far, and until when it must have proved it.
        self._guests: dict[socket.socket, tuple[bytes, bytearray, float]] = {}

    @property
    def address(self) -> str:
        return join_address(self.host, self.port)

    def accept(self, seconds: float) -> tuple[int, socket.socket] | None:
        """The next proven connection and the rank it claims; None after ``seconds``."""
        end = time.monotonic() + seconds
        while True:
            for key, _ in self._selector.select(max(0.0, min(0.5, end - time.monotonic()))):
                guest = key.fileobj
                assert isinstance(guest, socket.socket)
                if guest is self._socket:
                    self._greet()
                elif (rank := self._hear(guest)) is not None:
                    guest.setblocking(True)
                    return rank, guest
            now = time.monotonic()
            for guest in [g for g, (_, _, until) in self._guests.items() if now > until]:
                self._drop(guest)
            if now >= end:
                return None

    def close(self) -> None:
        for guest in list(self._guests):
            self._drop(guest)
        self._selector.close()
        self._socket.close()

    def _greet(self) -> None:
        try:
            guest, _ = self._socket.accept()
        except OSError:
            return  # it has gone again
        guest.setblocking(False)
        nonce = secrets.token_bytes(_NONCE)
        try:
            guest.send(_GREETING + nonce)
        except OSError:
            guest.close()
            return
        if len(self._guests) >= _PENDING:
            self._drop(next(iter(self._guests)))
        self._guests[guest] = nonce, bytearray(), time.monotonic() + _PATIENCE
        self._selector.register(guest, selectors.EVENT_READ)

    def _hear(self, guest: socket.socket) -> int | None:
        """Reads on; the rank once the proof is complete and right."""
        nonce, said, _ = self._guests[guest]
        try:
            more = guest.recv(_ANSWER - len(said))
        except BlockingIOError:
            return None
        except OSError:
            more = b""
        said += more
        if not more:
            self._drop(guest)
        if not more or len(said) < _ANSWER:
            return None
        rank, theirs = said[: _RANK.size], bytes(said[_RANK.size : _RANK.size + _NONCE])
        right = _proof(self._token, b"knock", nonce, theirs, rank)
        if not hmac.compare_digest(right, bytes(said[-_PROOF:])):
            with contextlib.suppress(OSError):
                guest.send(bytes(_PROOF))
            self._drop(guest)
            return None
        try:
            guest.send(_proof(self._token, b"enter", nonce, theirs))
        except OSError:
            self._drop(guest)
            return None
        self._selector.unregister(guest)
        del self._guests[guest]
        return int(_RANK.unpack(rank)[0])

    def _drop(self, guest: socket.socket) -> None:
        self._selector.unregister(guest)
        del self._guests[guest]
        guest.close()


def knock(address: str, token: str, rank: int, end: float) -> socket.socket:
    """A connection through the gate at ``address``, proven on both sides.

    Args:
        address: ``host:port``; a port that is not open yet is tried again.
        token: the secret that the gate knows.
        rank: who we are.
        end: ``time.monotonic()`` at which to give up.

    Raises:
        UsageError: the address cannot be read, or the gate knows another token.
        PeerLostError: nobody answered by ``end``.
    """
    host, port = split_address(address)
    trouble: object = "no answer"
    while True:
        left = end - time.monotonic()
        if left <= 0:
            raise PeerLostError(
                f"rank {rank} could not reach {address} in time ({trouble}): is that host up, and "
                "may this one connect to it? --interface or DISTGRAD_INTERFACE chooses a network."
            )
        try:
            connection = socket.create_connection((host, port), timeout=left)
        except OSError as error:
            trouble = error
            time.sleep(min(0.1, left))
            continue
        try:
            connection.settimeout(min(left, _PATIENCE))
            if _prove(connection, token.encode(), rank):
                connection.settimeout(None)
                return connection
        except OSError as error:  # its backlog was full, or it is busy
            trouble = error
            connection.close()
            time.sleep(min(0.1, max(0.0, end - time.monotonic())))
            continue
        connection.close()
        raise UsageError(
            f"{address} refused rank {rank}: it belongs to another job, or DISTGRAD_TOKEN is not "
            "the same everywhere."
        )


class Rendezvous:
    """The place where the ranks of one start of a job learn each other's addresses.

    It serves in a thread of its own until everyone has been there, the time is over, or
    ``close``. ``address`` and ``token`` are what each rank must be given, with its rank and the
    world size: see ``distgrad.comm.tcp.connect``.

    Args:
        world_size: number of ranks.
        token: their secret.
        host: address to listen on, by which every rank can reach this process.
        port: 0 takes a free one.
        timeout: seconds until the ranks that have come are told which have not.
    """

    def __init__(
        self,
        world_size: int,
        token: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        timeout: float = 60.0,
    ) -> None:
        self.world_size = world_size
        self.token = token
        self.timeout = timeout
        self._gate = Gate(host, port, token)
        self.address = self._gate.address
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="rendezvous", daemon=True)

    def start(self) -> Rendezvous:
        """Begins to serve; the address could be given away before. Returns itself."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Ends it, also before anyone has come."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        else:
            self._gate.close()

    def _serve(self) -> None:
        came: dict[int, tuple[socket.socket, str]] = {}
        end = time.monotonic() + self.timeout
        try:
            while len(came) < self.world_size and time.monotonic() < end:
                if self._closed.is_set():
                    return
                guest = self._gate.accept(0.1)
                if guest is not None:
                    self._note(came, *guest)
            missing = [rank for rank in range(self.world_size) if rank not in came]
            if missing:
                news: dict[str, Any] = {
                    "error": f"{name_ranks(missing)} of {self.world_size} did not come to "
                    f"{self.address} within {self.timeout:g} s: not started, or unable to connect."
                }
            else:
                news = {"addresses": [came[rank][1] for rank in range(self.world_size)]}
            for connection, _ in came.values():
                with contextlib.suppress(OSError):
                    send_json(connection, news)
        finally:
            for connection, _ in came.values():
                connection.close()
            self._gate.close()

    def _note(
        self, came: dict[int, tuple[socket.socket, str]], rank: int, connection: socket.socket
    ) -> None:
        try:
            connection.settimeout(_PATIENCE)
            said = receive_json(connection)
            error = None
            if said["world_size"] != self.world_size:
                error = f"rank {rank} expects {said['world_size']} ranks, not {self.world_size}."
            elif rank >= self.world_size:
                error = f"rank {rank} is not among the {self.world_size} ranks of this job."
            elif rank in came:
                error = f"two processes say that they are rank {rank}."
            if error is not None:
                send_json(connection, {"mistake": error})
                connection.close()
                return
        except (OSError, ValueError, KeyError, TypeError):
            connection.close()
            return
        came[rank] = connection, said["address"]


def meet(connection: socket.socket, rank: int, world_size: int, address: str, end: float) -> list:
    """Announces ``address`` at a Rendezvous and returns the addresses of all ranks.

    Raises:
        PeerLostError: some ranks did not come in time; the message names them.
        UsageError: this one is not among them.
    """
    try:
        send_json(connection, {"world_size": world_size, "address": address})
        # The other side has the same deadline and knows who is missing.
        connection.settimeout(max(0.1, end - time.monotonic()) + _PATIENCE)
        news = receive_json(connection)
    except (OSError, ValueError) as error:
        raise PeerLostError(
            f"rank {rank} lost the process that brings the ranks together ({error})."
        ) from None
    if "mistake" in news:
        raise UsageError(news["mistake"])
    if "error" in news:
        raise PeerLostError(news["error"])
    addresses: list[str] = news["addresses"]
    return addresses


def send_json(connection: socket.socket, value: Any) -> None:
    """Sends a value as its length and JSON."""
    data = json.dumps(value).encode()
    connection.sendall(struct.pack("<I", len(data)) + data)


def receive_json(connection: socket.socket) -> Any:
    """The value that `send_json` has sent. Raises ValueError for one too long, or no JSON."""
    (length,) = struct.unpack("<I", receive(connection, 4))
    if length > 1 << 24:
        raise ValueError(f"a message of {length} bytes")
    return json.loads(receive(connection, length))


def join_address(host: str, port: int) -> str:
    """``host:port``, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[IPv6]:port``. Raises UsageError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"the address {address!r} must read host:port.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def interface_address(interface: str) -> str:
    """The address of a network interface by its name (Linux), or of a host by name or number.

    Raises:
        UsageError: there is none.
    """
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(interface))
    known = [name for _, name in socket.if_nameindex()]
    if interface in known and sys.platform == "linux":
        import fcntl

        request = struct.pack("256s", interface.encode()[:15])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                found = fcntl.ioctl(probe.fileno(), 0x8915, request)  # SIOCGIFADDR
            except OSError as error:
                raise UsageError(
                    f"the interface {interface} has no IPv4 address ({error.strerror})."
                ) from None
        return socket.inet_ntoa(found[20:24])
    try:
        return str(socket.getaddrinfo(interface, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        raise UsageError(
            f"{interface!r} is neither a network interface of this host ({', '.join(known)}) nor "
            "an address."
        ) from None


def _prove(connection: socket.socket, token: bytes, rank: int) -> bool:
    greeting = receive(connection, len(_GREETING) + _NONCE)
    if not greeting.startswith(_GREETING):
        return False
    nonce, mine, name = greeting[-_NONCE:], os.urandom(_NONCE), _RANK.pack(rank)
    connection.sendall(name + mine + _proof(token, b"knock", nonce, mine, name))
    answer = receive(connection, _PROOF)
    return hmac.compare_digest(answer, _proof(token, b"enter", nonce, mine))


def _proof(token: bytes, *parts: bytes | bytearray) -> bytes:
    return hmac.digest(token, b"".join(parts), hashlib.sha256)


def receive(connection: socket.socket, count: int) -> bytes:
    """``count`` bytes. Raises ConnectionResetError where the other side closes before them."""
    data = bytearray()
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionResetError("the other side has closed the connection")
        data += more
    return bytes(data)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}: {error}") from None
    try:
        if port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(512)
    except OSError as error:
        listening.close()
        raise UsageError(
            f"cannot listen on {join_address(host, port)} ({error.strerror}): the port is taken or "
            "the address is not of this host; DISTGRAD_ADDRESS=host:port names another."
        ) from None
    return listening
