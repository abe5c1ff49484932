"""Whose a study is, where nothing can be locked: an object with its holder's word in it, renewed while it is held.

Object stores have no locks, and not all of them write on a condition. Who finds no living lease writes one, waits, and
holds it if its word is still the one that is there: of several writers the last.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lethe.storage.object_store import ObjectStore

RENEW_S = 20.0
EXPIRES_S = 90.0  # three renewals may fail
SETTLE_S = 1.5  # for whoever else has just found no lease: longer than a small write usually takes


@dataclass
class Lease:
    """`name`: the object's. `lost` is called, once, when somebody else holds it: it had expired for lack of renewals."""

    store: ObjectStore
    name: str
    lost: Callable[[], None]
    _word: str = field(default_factory=lambda: secrets.token_hex(8))
    _end: threading.Event = field(default_factory=threading.Event)

    def is_held(self) -> bool:
        """Whether somebody holds it: renewed lately by the store's own clock, and by no dead process of this machine."""
        held = self.store.info(self.name)
        raw = held and self.store.read(self.name)
        if not held or not raw:
            return False
        holder = json.loads(raw)
        if holder["machine"] == _machine() and not _lives(holder["pid"]):
            return False
        return self._now() - held.modified < EXPIRES_S

    @contextmanager
    def hold(self) -> Iterator[bool]:
        """Whether it is ours while the block runs."""
        if self.is_held():
            yield False
            return
        self._write()
        self._end.wait(SETTLE_S)
        if not self._ours():
            yield False
            return
        thread = threading.Thread(target=self._renew, daemon=True, name="lease")
        thread.start()
        try:
            yield True
        finally:
            self._end.set()
            thread.join(RENEW_S)
            with suppress(OSError):  # it expires
                if self._ours():
                    self.store.remove(self.name)

    def _renew(self) -> None:
        while not self._end.wait(RENEW_S):
            with suppress(OSError):  # the store is away: whoever writes to it hears of that
                if not self._ours():
                    self.lost()
                    return
                self._write()

    def _write(self) -> None:
        who = {"word": self._word, "host": socket.gethostname(), "machine": _machine(), "pid": os.getpid()}
        self.store.put(self.name, json.dumps(who).encode())

    def _ours(self) -> bool:
        raw = self.store.read(self.name)
        return raw is not None and json.loads(raw)["word"] == self._word

    def _now(self) -> float:
        """The store's time: when it has just written something."""
        probe = f".clock-{self._word}"
        self.store.put(probe, b"")
        found = self.store.info(probe)
        self.store.remove(probe)
        assert found is not None
        return found.modified


def _machine() -> str:
    """Where a pid means something: containers of one host name have pids of their own."""
    with suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    return secrets.token_hex(8)  # nowhere else


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
