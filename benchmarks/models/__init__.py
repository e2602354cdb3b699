"""Models beside each other: likelihoods, and the claims of the lecture."""
