"""What is on record: cards, aliases, history, trust withdrawn, copies at peers, and the log."""
