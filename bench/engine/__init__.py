"""Speed of the engine in one run on one broker: beside a hand-written loop, Quix Streams and Faust, each checked by an oracle."""
