"""`explain`: why the router sends a question to a card, or to none, and what would change that."""

from __future__ import annotations

import math
from typing import Any

import rich.table

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.cluster import cluster
from services.gateway.command_line import listing
from shared import settings as config
from shared import terminal

_CHANGES_SHOWN = 3
_LEAST_SHOWN = 0.005
"""Log odds; less would be told as nothing."""
_REASONS = {
    "FITS": "chosen: {first}",
    "TOO_UNSURE": "no card fits: the best one is too unlikely",
    "NO_CARDS": "no card fits: the router has no cards yet; ask or teach something first",
    "NO_WORDS": "no card fits: the question has no words to compare",
}


async def explain(question: str, top_k: int, threshold: float | None, as_json: bool) -> None:
    """Asks the router and prints the explanation.

    Args:
        question: what.
        top_k: cards to take apart.
        threshold: 0 to 1; None for the router's own.
        as_json: print one JSON object.
    """
    if not question.strip():
        raise terminal.UsageError('a question is missing: make explain q="What is a skill card?"')
    settings = config.load()
    alive = cluster.Cluster(settings).supervisor.alive
    async with peers.connected(settings) as services:
        found = await peers.while_restarting(
            lambda: services.router.explain(question, top_k, threshold), alive
        )
    if as_json:
        terminal.print_json(found)
        return
    for line in summary(found):
        terminal.RESULT.print(terminal.escape(line), soft_wrap=True)
    for place, card in enumerate(found["cards"], start=1):
        for line in about(place, card):
            terminal.RESULT.print(terminal.escape(line), soft_wrap=True)
        terminal.RESULT.print(_table(card))


def summary(found: dict[str, Any]) -> list[str]:
    """The decision, and what would have made it another."""
    cards = found["cards"]
    first = listing.short(cards[0]["card"]) if cards else ""
    lines = [
        _REASONS[found["reason"]].format(first=first),
        f"confidence {found['confidence']:.3f}, none fits {found['none_probability']:.3f}, "
        f"threshold {found['threshold']:g}, {_counted(found['number_of_cards'])}",
    ]
    if not cards:
        return lines
    chosen = found["reason"] == "FITS"
    other = "no card would fit above it" if chosen else f"{first} would be chosen up to it"
    lines.append(f"the decision flips at a threshold of {found['flips_above']:.3f}: {other}")
    likeness = [_change(one) for one in _easiest(cards[0])]
    if likeness:
        lines.append(f"it would also flip with {', or with '.join(likeness)}, all else the same")
    elif cards[0]["is_example"]:
        lines.append("the question is one of the card's own examples, whatever else is known of it")
    else:
        lines.append("no feature by itself would flip it, all else the same")
    if found.get("lead") is not None:
        second = listing.short(cards[1]["card"]) if len(cards) > 1 else "the second best"
        would = "would" if found["second_fits"] else "would not"
        lines.append(
            f"{first} leads by a factor of {_factor(found['lead'])}; without it {second} {would} "
            "be chosen"
        )
    return lines


def about(place: int, card: dict[str, Any]) -> list[str]:
    """What is known of one card, but for the table."""
    lines = [
        "",
        f"{place}. {listing.short(card['card'])}: probability {card['probability']:.3f}, alone "
        f"{card['fits']:.3f} (log odds {card['log_odds']:+.2f})",
    ]
    what = "its description" if card["stand_in"] else "nearest examples"
    lines += [f"   {what}:"]
    lines += [f"     {one['cosine']:.3f}  {one['text']}" for one in card["examples"]]
    for key, said in (("known_words", "words it has, too"), ("foreign_words", "words it has not")):
        if card[key]:
            lines.append(f"   {said}: {', '.join(card[key])}")
    lines.append(
        f"   log odds: {card['start']:+.2f} to start with, what weighs below"
        + (f", {card['rest']:+.2f} besides" if abs(card["rest"]) > 0.005 else "")
    )
    return lines


def _table(card: dict[str, Any]) -> rich.table.Table:
    table = rich.table.Table(
        "what weighs", "value", "ordinary", "log odds", "against the next", "flips"
    )
    for one in card["contributions"]:
        against, flips = one.get("against_next"), one.get("flips_at")
        if max(abs(one["log_odds"]), abs(against or 0.0)) < _LEAST_SHOWN:
            continue
        table.add_row(
            domain.feature(one["feature"]),
            f"{one['value']:.3f}",
            f"{one['typical']:.3f}",
            f"{one['log_odds']:+.2f}",
            "" if against is None else f"{against:+.2f}",
            "" if flips is None or not one["reachable"] else f"{flips:.3f}",
        )
    return table


def _easiest(card: dict[str, Any]) -> list[dict[str, Any]]:
    """The features whose values would have to change least to flip the decision."""
    possible = [one for one in card["contributions"] if one["reachable"]]
    return sorted(possible, key=lambda one: abs(one["flips_at"] - one["value"]))[:_CHANGES_SHOWN]


def _change(one: dict[str, Any]) -> str:
    change = one["flips_at"] - one["value"]
    return f'"{domain.feature(one["feature"])}" at {one["value"]:.3f} {change:+.3f}'


def _factor(log_odds: float) -> str:
    return f"{math.exp(log_odds):,.1f}" if log_odds < 10 else "over 20,000"


def _counted(cards: int) -> str:
    return "1 card" if cards == 1 else f"{cards:,} cards"
