"""Portfolio accounting: what facts make of cash, positions and profit, exact and whatever order they come in."""
