"""The elements that pages are made of: plain HTML with the classes of `static/console.css`.

Words are always set as text, never as HTML, whoever wrote them.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from nicegui import ui
from nicegui.elements.mixins import text_element

from services.gateway.console import wording

Value = TypeVar("Value", bound=Hashable)
Made = TypeVar("Made", bound=ui.element)
OnClick = Callable[..., Any]


class Text(text_element.TextElement):
    """An element with words in it; `text` may be set."""

    def __init__(self, tag: str, words: str, classes: str = "", **attributes: Any) -> None:
        """Takes the tag, the words, and attributes such as `aria_label`."""
        super().__init__(tag=tag, text=words)
        _dress(self, classes, attributes)


def block(tag: str, classes: str = "", **attributes: Any) -> ui.element:
    """An element that others go into."""
    return _dress(ui.element(tag), classes, attributes)


def _dress(element: Made, classes: str, attributes: Mapping[str, Any]) -> Made:
    if classes:
        element.classes(classes)
    for name, value in attributes.items():
        element.props[name.rstrip("_").replace("_", "-")] = value
    return element


def icon(name: str) -> ui.element:
    """A picture beside words that say the same; hidden from screen readers."""
    with block("svg", "icon", aria_hidden="true", focusable="false") as picture:
        block("use", href=f"#icon-{name}")
    return picture


def button(
    words: str, on_click: OnClick | None, kind: str = "", about: str = "", **attributes: Any
) -> Text:
    """A button.

    Args:
        words: what it does.
        on_click: what then happens; None for a form's own.
        kind: primary, danger or quiet; empty for an ordinary one.
        about: what it does it to, for those who hear the button alone.
        attributes: more.
    """
    if about:
        attributes["aria_label"] = f"{words}: {about}"
    made = Text("button", words, f"button {kind}", **({"type": "button"} | attributes))
    if on_click is not None:
        made.on("click", on_click, [])
    return made


def chip(words: str, tone: str = "plain") -> Text:
    """A short word about a state; its colour says nothing that the word does not."""
    return Text("span", words, f"chip {tone}")


def link(words: str, to: str, classes: str = "") -> Text:
    """A way to another page."""
    return Text("a", words, classes or "link", href=to)


def section(title: str, about: str = "", classes: str = "") -> ui.element:
    """A panel with a heading."""
    panel = block("section", f"panel {classes}", aria_label=title)
    with panel:
        Text("h2", title)
        if about:
            Text("p", about, "muted")
    return panel


def moment(at_ms: int, before: str = "") -> ui.element:
    """How long ago something was; the browser keeps it true, and tells the time itself on hover."""
    with block("span", "nowrap") as shown:
        if before:
            Text("span", before)
        stamp = datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC).isoformat()
        about = wording.moment(at_ms)
        Text("time", wording.ago(at_ms), datetime=stamp, data_at=str(at_ms), title=about)
    return shown


def empty(title: str, advice: str, to: str = "", go: str = "") -> ui.element:
    """What stands where nothing is yet: why, and the next thing to do."""
    with block("div", "empty") as shown:
        Text("p", title, "empty-title")
        Text("p", advice, "muted")
        if to:
            link(go, to, "button")
    return shown


def facts(pairs: Sequence[tuple[str, str]], classes: str = "") -> ui.element:
    """Names and values; those without a value are left out."""
    with block("dl", f"facts {classes}") as shown:
        for name, value in pairs:
            if value:
                with block("div"):
                    Text("dt", name)
                    Text("dd", value)
    return shown


class Figure:
    """A number with its name, large; `show` changes it."""

    def __init__(self, name: str) -> None:
        """Takes its name."""
        with block("div", "figure"):
            Text("span", name, "figure-name")
            self._value = Text("span", "–", "figure-value")
            self._about = Text("span", "", "figure-about")

    def show(self, value: str, about: str = "", tone: str = "") -> None:
        """Sets the number, a word about it, and the colour of that word."""
        self._value.text = value
        self._about.text = about
        self._about.classes(replace=f"figure-about {tone}")


class Keyed(Generic[Value]):
    """Elements that follow values by key: only what changed is built anew, so nothing flickers."""

    def __init__(self, holder: ui.element, tag: str, build: Callable[[Value], None]) -> None:
        """Takes where they stand, the tag of each, and what fills one."""
        self._holder = holder
        self._tag = tag
        self._build = build
        self._shown: dict[str, tuple[Value, ui.element]] = {}

    def show(self, values: Mapping[str, Value]) -> None:
        """Shows these, in their order, and no others."""
        for key in self._shown.keys() - values.keys():
            self._shown.pop(key)[1].delete()
        for place, (key, value) in enumerate(values.items()):
            known = self._shown.get(key)
            if known is None:
                with self._holder:
                    element = block(self._tag, **({"role": "row"} if self._tag == "tr" else {}))
            else:
                element = known[1]
            if known is None or known[0] != value:
                element.clear()
                with element:
                    self._build(value)
                self._shown[key] = (value, element)
            if self._holder.default_slot.children[place] is not element:
                element.move(self._holder, place)


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a table."""

    title: str
    classes: str = ""
    """`number` sets it to the right."""


class Table(Generic[Value]):
    """A table whose rows follow values; on narrow screens each row becomes a block."""

    def __init__(
        self,
        caption: str,
        columns: Sequence[Column],
        build: Callable[[Value], None],
        compact: bool = False,
    ) -> None:
        """Makes it, without rows.

        Args:
            caption: what it is about, for those who do not see where it stands.
            columns: their names.
            build: fills a row by way of `cell`.
            compact: small enough to stay a table on any screen.
        """
        kind = "compact" if compact else "wide"
        self._columns = columns
        self._build = build
        self._whole = block("div", "table-holder")
        self._whole.set_visibility(False)
        with self._whole, block("table", f"table {kind}", role="table"):
            Text("caption", caption, "unseen")
            with block("thead", role="rowgroup"), block("tr", role="row"):
                for column in columns:
                    Text("th", column.title, column.classes, scope="col", role="columnheader")
            body = block("tbody", role="rowgroup")
        self._rows = Keyed(body, "tr", self._row)
        self._place = 0

    def show(self, values: Mapping[str, Value]) -> None:
        """Shows these rows, in their order; nothing at all where there are none."""
        self._whole.set_visibility(bool(values))
        self._rows.show(values)

    def cell(self, words: str | None = None, classes: str = "") -> ui.element:
        """The next cell of the row that is being built."""
        column = self._columns[self._place]
        self._place += 1
        cell = block("td", f"{column.classes} {classes}", role="cell", data_title=column.title)
        if words is not None:
            with cell:
                Text("span", words)
        return cell

    def _row(self, value: Value) -> None:
        self._place = 0
        self._build(value)


def meter(value: float, about: str, mark: float | None = None) -> ui.element:
    """A bar from 0 to 1, with a mark where something begins.

    Args:
        value: how far it is filled.
        about: what it says, for those who do not see it.
        mark: where the mark stands.
    """
    with block("div", "meter", role="img", aria_label=about) as bar:
        block("span", "meter-fill").style(f"width: {100 * min(1.0, max(0.0, value)):.1f}%")
        if mark is not None:
            block("span", "meter-mark").style(f"left: {100 * mark:.1f}%")
    return bar
