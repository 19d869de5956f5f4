"""A strategy that runs on a log, as its author sees it: published once, then followed; nothing is computed here."""
