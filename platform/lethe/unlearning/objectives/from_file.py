"""A user's own loss from a Python file, which runs as code: the user's own study names it, nothing else loads code.

A study stores the file under the digest of its content and names it by that (`store`), so that runs carry what they
were trained with, and every node finds it. `check` tries a loss before a study starts.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from lethe.config.objective import File
from lethe.data.batches import RowKind
from lethe.errors import UserError, first_line
from lethe.storage.paths import atomic_folder, check_root, home
from lethe.storage.replica import ensure_local, local_path
from lethe.unlearning.objectives.base import LOSSES, Counts, Loss, Scored, make_loss
from lethe.unlearning.objectives.tokens import token_log_probs

CONTENT = "content:"
NAME = "objective.py"
SHARE, VALUES = "forget_share", "forget_values"
ARGUMENTS = {SHARE: ("values", "scored", "counts", "settings"), VALUES: ("scored", "settings")}


@LOSSES.implements(File)
class FileLoss(Loss):
    """L_forget as the file's `forget_share(values, scored, counts, settings)` has it: see `Loss.forget_share`.

    `values` are log-probabilities of the labels, or what the file's `forget_values(scored, settings)` gives at forget
    positions, if it has one: see `Loss.forget_values`. `settings` are the configuration's numbers. With a `layer`,
    forget_share has states at all positions, the start model's too; with `start_logits`, forget_values has the start
    model's logits at forget positions. Raises UserError for a file that is none, and for what its functions raise.
    """

    needs_start_log_probs: ClassVar[bool] = True

    def __init__(self, config: File) -> None:
        super().__init__(config)
        self.path, self.settings = config.path, dict(config.settings)
        self.functions = _functions(config.path)
        self.layer, self.trained, self.needs_start_logits = config.layer, config.trained, config.start_logits
        self.start_states_of = () if config.layer is None else self.trains_on

    def forget_values(self, scored: Scored) -> Tensor | None:
        """Return [N]: the file's values at forget positions, log p at retain positions; None where it has none."""
        if VALUES not in self.functions:
            return None
        if self.needs_start_logits:
            scored = replace(scored, start_logits=self.start_logits_at(RowKind.FORGET, scored))
        own = self._call(VALUES, scored, self.settings)
        return torch.where(scored.of(RowKind.FORGET), own, token_log_probs(scored.logits, scored.labels))

    def forget_share(self, values: Tensor, scored: Scored, counts: Counts) -> Tensor:
        """Return the file's share."""
        return self._call(SHARE, values, scored, counts, self.settings)

    def _call(self, name: str, *arguments: Any) -> Tensor:
        try:
            found: Tensor = self.functions[name](*arguments)
        except (Exception, SystemExit) as error:  # of the user's code, whatever it is
            raise UserError(f"{self.path}: {name} raises {type(error).__name__}: {first_line(error)}") from error
        return found


def store(path: str) -> str:
    """Copy a user's file into the storage root; return its address, `content:` and the content's digest. Raises
    UserError where there is no such file."""
    if path.startswith(CONTENT):
        return path
    content = _read(Path(path).expanduser())
    address = CONTENT + _digest(content)
    check_root()
    if not ensure_local(target := _folder(address)):
        with atomic_folder(target) as folder:
            (folder / NAME).write_bytes(content)
    return address


def check(config: File, name: str) -> None:
    """Raise UserError, which calls the file `name`, unless its loss of a step of four tiny rows keeps the contract: a
    finite scalar with a gradient on logits or states, whose shares of a divided step add up."""
    try:
        loss = make_loss(config)
        whole = _tiny(loss, torch.randn(12, 11, generator=torch.Generator().manual_seed(0)))
        tokens = {kind: int(whole.of(kind).sum()) for kind in RowKind}
        rows = {kind: int((whole.kind == kind).sum()) for kind in RowKind}
        counts = Counts(tokens, 2, rows, {kind: count / 3 for kind, count in rows.items()})  # each of three tokens
        share = _share(loss, whole, counts)
        read = [whole.logits] if whole.states is None else [whole.logits, whole.states]
        gradients = [each for each in torch.autograd.grad(share, read, allow_unused=True) if each is not None]
        if not gradients or not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            raise UserError(f"{SHARE}: its gradient on {_readable(loss)} is {'not finite' if gradients else 'missing'}")
        parts = [_share(loss, _part(loss, whole, mask), counts) for mask in (whole.row % 2 == 0, whole.row % 2 == 1)]
        if not torch.allclose(parts[0] + parts[1], share, rtol=1e-4, atol=1e-6):
            raise UserError(f"{SHARE}: shares of a divided step do not add up: divide sums by `counts`, take no means")
        _share(loss, _part(loss, whole, whole.row < 0), counts)  # a micro-batch without rows
    except UserError as error:
        problem = str(error).removeprefix(f"{config.path}: ")
        raise UserError(f"objective.path: {name}: {problem}") from None


def _share(loss: Loss, scored: Scored, counts: Counts) -> Tensor:
    """Return the file's share, from what each function has of `scored` in a step."""
    values = loss.token_values(replace(scored, states=None, start_states=None))
    share = loss.forget_share(values, replace(scored, logits=scored.logits[:, :0], start_logits=None), counts)
    if not isinstance(share, Tensor) or share.shape != () or not bool(torch.isfinite(share)):
        shown = list(share.shape) if isinstance(share, Tensor) and share.shape != () else share
        raise UserError(f"{SHARE}: must return a finite scalar tensor, given {shown}")
    if not share.requires_grad:
        raise UserError(f"{SHARE}: what it returns does not depend on {_readable(loss)}")
    return share


def _readable(loss: Loss) -> str:
    return "the logits" if loss.layer is None else "logits or states"


def _tiny(loss: Loss, logits: Tensor) -> Scored:
    row = torch.arange(4).repeat_interleave(3)
    kind = torch.tensor([RowKind.FORGET, RowKind.FORGET, RowKind.RETAIN, RowKind.RETAIN])
    labels, rows = torch.arange(12) % 11, torch.arange(4)
    scored = Scored(logits.requires_grad_(), labels, row, torch.arange(12) % 3, kind, rows, torch.full((4,), -5.0))
    if loss.start_logits_of:
        scored.start_logits = logits.detach()[scored.of(*loss.start_logits_of)]
    if loss.layer is not None:
        scored.states = logits.detach().cos().requires_grad_()
        scored.start_states = logits.detach().sin()[scored.of(*loss.start_states_of)]
    return scored


def _part(loss: Loss, whole: Scored, mask: Tensor) -> Scored:
    """Return the positions where `mask` [N] holds; rows stay."""

    def at(values: Tensor | None, *kinds: RowKind) -> Tensor | None:
        return None if values is None else values[mask[whole.of(*kinds)]]

    positions = {name: getattr(whole, name)[mask] for name in ("logits", "labels", "row", "place")}
    start = at(whole.start_logits, *loss.start_logits_of)
    states, start_states = at(whole.states, *RowKind), at(whole.start_states, *loss.start_states_of)
    return replace(whole, **positions, start_logits=start, states=states, start_states=start_states)


@lru_cache
def _functions(path: str) -> Mapping[str, Callable[..., Any]]:
    """Return the functions of the contract that a file has. Raises UserError where it cannot be run, lacks
    `forget_share`, or where a function takes other arguments."""
    file = local_path(_folder(path)) / NAME if path.startswith(CONTENT) else Path(path).expanduser()
    content = _read(file)
    if path.startswith(CONTENT) and CONTENT + _digest(content) != path:
        raise UserError(f"{path}: {file} is not the file that the study began with: remove it and name yours again")
    module = ModuleType(f"lethe_objective_{_digest(content)}")
    try:
        # Python reads bytes of a comment in any encoding, an imported file's as UTF-8 alone.
        exec(compile(content.decode("utf-8-sig"), str(file), "exec", dont_inherit=True), vars(module))  # noqa: S102
    except UnicodeDecodeError:
        raise UserError(f"{path}: is no text in UTF-8: name a Python file") from None
    except (Exception, SystemExit) as error:  # of the user's code, whatever it is
        raise UserError(f"{path}: running it raises {type(error).__name__}: {first_line(error)}") from error
    found = {name: value for name in ARGUMENTS if callable(value := getattr(module, name, None))}
    if SHARE not in found:
        raise UserError(f"{path}: there is no function {SHARE}({', '.join(ARGUMENTS[SHARE])})")
    for name, function in found.items():
        try:
            inspect.signature(function).bind(*ARGUMENTS[name])
        except TypeError:
            raise UserError(f"{path}: {name} must take {', '.join(ARGUMENTS[name])}") from None
    return found


def _folder(address: str) -> Path:
    return home() / "cache" / "objectives" / address.removeprefix(CONTENT)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): name a Python file") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
