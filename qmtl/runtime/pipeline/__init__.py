"""What lies between stages and is none of them."""
