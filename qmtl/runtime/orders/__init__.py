"""Orders as they live: the states, what may be asked, what reports and fills make of them, and orders that hang on each other."""
