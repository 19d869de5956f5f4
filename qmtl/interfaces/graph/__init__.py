"""The graph of shared nodes as a picture: what is drawn, where, and in which form."""
