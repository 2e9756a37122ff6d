"""A round, derived from the board: what the coordinator opens, what the sites answer, what is still to do."""
