"""The lecture's models: one folder a family, one file a model; registry.py has their names."""
