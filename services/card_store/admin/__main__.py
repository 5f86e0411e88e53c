"""Runs the operator's command line."""

from __future__ import annotations

from services.card_store.admin import cards

if __name__ == "__main__":
    cards.app()
