"""The scripts that make a page interactive: plotly.js, our scripts and the page's own data, all inside the page.

A page with scripts has `payload(...)` in it, and `content_policy(...)` lets the browser run exactly these scripts, by
their digests: no text of a model or a library can become code. plotly.js and the data are compressed; without scripts,
and until they are unpacked, the page shows its static drawings.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

Figure = dict[str, Any]  # plotly's `data` and `layout`; text such as "--accent" is a color of style.css.j2


@dataclass(frozen=True)
class PageScripts:
    """The scripts of one page: `data` and `plotly` are compressed (gzip, base64), `code` is ours."""

    data: str
    plotly: str
    code: str

    @property
    def policy(self) -> str:
        """The Content-Security-Policy under which these scripts run, and no other."""
        allowed = " ".join(f"'sha256-{_digest(code)}'" for code in (self.code, _plotly_code()))
        return f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {allowed}"


def page_scripts(modules: Sequence[str], figures: Mapping[str, Figure], **data: Any) -> PageScripts:
    """Return the scripts of a page with these figures by name.

    `modules`: of our scripts in `templates/`, without `.js`, in the order in which they run; `figures.js`, which draws,
    is always the first. `data`: what else they read, as JSON; numbers that are not finite become null.
    """
    code = "\n".join(_source(module) for module in ("figures", *modules))
    text = json.dumps(finite({"figures": figures, **data}), ensure_ascii=False, separators=(",", ":"), default=str)
    return PageScripts(_packed(text.encode(errors="replace")), _packed_plotly(), code)


def finite(value: Any) -> Any:
    """Return `value` with None in the place of numbers that JSON has no name for."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _source(module: str) -> str:
    return (files("lethe.reporting") / "templates" / f"{module}.js").read_text()


@cache
def _plotly_code() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@cache
def _packed_plotly() -> str:
    return _packed(_plotly_code().encode())


def _packed(raw: bytes) -> str:
    return base64.b64encode(gzip.compress(raw, mtime=0)).decode()


def _digest(code: str) -> str:
    return base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
