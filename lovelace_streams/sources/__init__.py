"""Where a flow's records come from."""
