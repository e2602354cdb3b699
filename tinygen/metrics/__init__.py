"""How good generated images are, by features learned from the data set itself: no network from outside."""
