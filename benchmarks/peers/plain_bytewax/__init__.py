"""Plain Bytewax."""
