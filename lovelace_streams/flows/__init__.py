"""A flow: how it is found by name, what it says of itself, and which parts it has."""
