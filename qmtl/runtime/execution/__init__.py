"""The rules between a signal and a portfolio, which live trading, a backtest and the stages of a node set share."""
