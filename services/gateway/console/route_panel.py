"""Why a question is routed as it is: the decision, the nearest cards, what weighed how much."""

from __future__ import annotations

from typing import Any

from services.gateway import domain
from services.gateway.command_line import explaining
from services.gateway.console import frame, parts, wording

_SHOWN = 8
_DECISIONS = {
    "FITS": ("A card fits", "good"),
    "TOO_UNSURE": ("No card fits", "warn"),
    "NO_CARDS": ("No cards yet", "warn"),
    "NO_WORDS": ("Nothing to compare", "warn"),
}


def show(found: dict[str, Any]) -> None:
    """Shows an explanation of the router, as `calls.router` tells it."""
    words, tone = _DECISIONS.get(found["reason"], (found["reason"], "plain"))
    cards, confidence, threshold = found["cards"], found["confidence"], found["threshold"]
    with parts.block("div", "row between"):
        parts.chip(words, tone)
        with parts.block("span", "muted"):
            parts.Text("span", wording.counted(found["number_of_cards"], "card") + " known")
    with parts.block("div", "measure"):
        parts.Text("span", "Confidence that a card fits")
        parts.Text("strong", f"{confidence:.2f}")
        parts.meter(
            confidence,
            f"Confidence {confidence:.2f}; a card answers from {threshold:.2f} on",
            threshold,
        )
        parts.Text("span", f"the mark is the threshold, {threshold:.2f}", "sub")
    if not cards:
        advice = "The bare base model answers, and what it does not know is learned."
        parts.Text("p", advice, "muted")
        return
    for place, card in enumerate(cards):
        _card(card, place == 0 and found["reason"] == "FITS")
    with parts.block("details", "details"):
        parts.Text("summary", "What would change it, and what weighed how much")
        with parts.block("div", "stack"):
            with parts.block("ul", "lines"):
                for line in explaining.summary(found)[2:]:
                    parts.Text("li", line[:1].upper() + line[1:] + ".")
            _features(cards[0])


def _card(card: dict[str, Any], chosen: bool) -> None:
    name = wording.card_name(card["card"])
    with parts.block("div", "stack"):
        with parts.block("div", "measure"):
            with parts.block("span", "row"):
                parts.link(name, f"{frame.PREFIX}/cards/{name}")
                if chosen:
                    parts.chip("answers", "good")
            parts.Text("strong", f"{card['probability']:.2f}")
            parts.meter(card["probability"], f"{name}: probability {card['probability']:.2f}")
        if card["examples"]:
            nearest = card["examples"][0]
            kind = "Its description" if card["stand_in"] else "Nearest question it knows"
            said = f"{kind}: “{nearest['text']}” ({nearest['cosine']:.2f} alike)"
            parts.Text("p", said, "muted")


def _features(card: dict[str, Any]) -> None:
    about = f"What weighed for and against {wording.card_name(card['card'])}"
    columns = (
        parts.Column("What weighs"),
        parts.Column("Value", "number"),
        parts.Column("Ordinary", "number"),
        parts.Column("Log odds", "number"),
    )

    def row(one: tuple[str, float, float, float]) -> None:
        feature, value, typical, odds = one
        table.cell(domain.feature(feature), "lead")
        table.cell(f"{value:.3f}")
        table.cell(f"{typical:.3f}")
        table.cell(f"{odds:+.2f}")

    table = parts.Table[tuple[str, float, float, float]](about, columns, row, compact=True)
    table.show(
        {
            one["feature"]: (one["feature"], one["value"], one["typical"], one["log_odds"])
            for one in card["contributions"][:_SHOWN]
        }
    )
