"""A report's page as its elements, texts and rows."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "br", "link", "img"}


class Page(HTMLParser):
    """A page's elements, texts, rows of trials by number and rows of arms by name; fails on anything left open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.rows: dict[int, list[str]] = {}
        self.arms: dict[str, list[str]] = {}
        self._open: list[str] = []
        self._row: list[str] | None = None
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            given = dict(attrs)
            number, name = given.get("data-trial"), given.get("data-row")
            self._row = self.rows.setdefault(int(number), []) if number else None
            self._row = self.arms.setdefault(name, []) if name else self._row

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self._open):
            self.texts.append(data)
        if self._row is not None and "tr" in self._open:
            self._row.append(data.strip())

    def attributes_of(self, name: str) -> str:
        return " ".join(value for key, value in self.attributes if key == name)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())
