"""Models that are sampled by a Markov chain: Boltzmann machines and generative stochastic networks."""
