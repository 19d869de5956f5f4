"""Speed as ratios of one run: the engine against a hand-written loop on the same broker with the same codec."""
