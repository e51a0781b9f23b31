"""Dead letters: made of what failed, held back, sent, read, replayed."""
