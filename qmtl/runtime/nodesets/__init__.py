"""Node sets: what is hung behind a signal so that it is executed, as one opaque whole per kind of exchange."""
