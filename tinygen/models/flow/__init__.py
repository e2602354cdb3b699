"""Flows: models that change variables, with a density that can be computed."""
