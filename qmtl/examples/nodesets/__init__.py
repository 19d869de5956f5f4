"""A strategy per recipe of a node set: the same signal, behind which another kind of exchange is hung."""
