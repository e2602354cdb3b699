"""How good generated images are, by features learnt from the data set itself: no network from outside."""
