"""The Execution Manager: starts, stops, restarts and watches runs of strategies, each a process of its own. It decides nothing about trading."""
