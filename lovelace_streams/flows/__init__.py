"""What a flow is: how it is found by name, and what it is made of."""
