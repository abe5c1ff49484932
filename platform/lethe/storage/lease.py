"""A lease: one process at a time may work on a study whose files lie in an object store.

Object stores have no locks, and not all of them support conditional writes. So the lease is an object that names its
holder, renewed every `RENEW_S` seconds while it is held. A process that finds no living lease writes its own, waits
`SETTLE_S` seconds, and holds the lease if its token is still in the object: of several writers, the last one wins.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lethe.storage.object_store import ObjectStore

RENEW_S = 20.0
EXPIRES_S = 90.0  # three renewals may fail
SETTLE_S = 1.5  # longer than a small write usually takes: other processes may have just found no lease, too


@dataclass(frozen=True)
class Holder:
    """The content of a lease's object: `word` is the holder's token; `machine` says where its `pid` has a meaning."""

    word: str
    host: str
    machine: str
    pid: int


@dataclass
class StudyLease:
    """The lease in the object `name` of `store`. `lost` is called once, from a thread, when another process has taken
    the lease because it had expired for lack of renewals."""

    store: ObjectStore
    name: str
    lost: Callable[[], None]
    _token: str = field(default_factory=lambda: secrets.token_hex(8))
    _released: threading.Event = field(default_factory=threading.Event)

    def is_held(self) -> bool:
        """Return whether some process holds the lease: it was renewed less than `EXPIRES_S` ago by the store's own
        clock, and its holder is not a dead process of this machine."""
        info = self.store.info(self.name)
        holder = info and self._holder()
        if not info or not holder:
            return False
        if holder.machine == _machine() and not _is_running(holder.pid):
            return False
        return self._store_time() - info.modified < EXPIRES_S

    @contextmanager
    def hold(self) -> Iterator[bool]:
        """Try to take the lease, yield whether this process has it, and release it at the end of the block."""
        if self.is_held():
            yield False
            return
        self._write()
        self._released.wait(SETTLE_S)
        if not self._is_ours():
            yield False
            return
        thread = threading.Thread(target=self._renew_until_released, daemon=True, name="lease")
        thread.start()
        try:
            yield True
        finally:
            self._released.set()
            thread.join(RENEW_S)
            with suppress(OSError):  # a lease that cannot be removed expires
                if self._is_ours():
                    self.store.remove(self.name)

    def _renew_until_released(self) -> None:
        while not self._released.wait(RENEW_S):
            with suppress(OSError):  # a store out of reach shows itself wherever the study writes to it
                if not self._is_ours():
                    self.lost()
                    return
                self._write()

    def _write(self) -> None:
        holder = Holder(self._token, socket.gethostname(), _machine(), os.getpid())
        self.store.put(self.name, json.dumps(asdict(holder)).encode())

    def _holder(self) -> Holder | None:
        raw = self.store.read(self.name)
        return Holder(**json.loads(raw)) if raw else None

    def _is_ours(self) -> bool:
        holder = self._holder()
        return holder is not None and holder.word == self._token

    def _store_time(self) -> float:
        """Return the store's clock in seconds since 1970: the modification time of an object written just now."""
        probe = f".clock-{self._token}"
        self.store.put(probe, b"")
        info = self.store.info(probe)
        self.store.remove(probe)
        assert info is not None
        return info.modified


def _machine() -> str:
    """Return an identifier of the kernel and pid namespace of this process, so that containers with one host name
    differ; random where the system shows neither."""
    with suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    return secrets.token_hex(8)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs as another user
        pass
    return True
