"""What a grid of rows shows: which rows in which order, as which cells, and what is in the columns."""
