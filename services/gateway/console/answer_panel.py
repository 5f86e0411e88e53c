"""One answer: its words as they come, who gave it and how sure, and what may be said of it."""

from __future__ import annotations

from services.gateway import domain
from services.gateway.console import frame, live, parts, wording


class Panel:
    """Stands where it is made."""

    def __init__(self, title: str, classes: str = "") -> None:
        """Takes its heading."""
        with parts.block("section", f"panel answer {classes}", aria_label=title) as self.panel:
            with parts.block("div", "answer-head"):
                self._title = parts.Text("h2", title)
                self._who = parts.block("span", "row")
            self._text = parts.Text("p", "", "answer-text waiting", aria_live="off")
            self._about = parts.Text("p", "", "muted")
            self.notice = live.Notice()
            self.foot = parts.block("div")
            """What may be said of it."""

    def name(self, title: str) -> None:
        """Changes the heading."""
        self._title.text = title
        self.panel.props["aria-label"] = title

    def write(self, text: str) -> None:
        """Shows what came so far."""
        self._text.text = text

    def settle(self, answer: domain.Answer) -> None:
        """Shows the whole answer and who gave it."""
        self._text.text = answer.text
        self.stop()
        with self._who:
            if answer.card:
                name = wording.card_name(answer.card)
                parts.link(name, f"{frame.PREFIX}/cards/{name}")
                parts.chip("skill card", "good")
            else:
                parts.chip("bare base model", "plain")
        told = [f"confidence that a card fits {answer.confidence:.2f}"]
        if answer.rewritten_query:
            told.append(f"read as “{answer.rewritten_query}”")
        if len(answer.shares) > 1:
            told.append("merged from " + ", ".join(wording.card(one) for one, _ in answer.shares))
        if answer.node:
            told.append(f"on {answer.node}")
        self._about.text = " · ".join(told)

    def stop(self) -> None:
        """Nothing more comes."""
        self._text.classes(remove="waiting")
