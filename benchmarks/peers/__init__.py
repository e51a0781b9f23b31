"""Other engines doing the members job, with the configuration that their documentation advises."""
