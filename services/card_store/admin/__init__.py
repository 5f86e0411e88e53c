"""The operator's command line: `python -m services.card_store.admin`."""
