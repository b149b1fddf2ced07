"""The run folder: settings, ledger, what is left to do."""
