"""What a run was worth: its equity curve, its trades, and figures of both, each with its formula and convention. Pure."""
