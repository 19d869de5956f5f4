"""How fast a backtest is, beside other engines on the same bars: a figure counts only where the result is right."""
