"""Networks that several families use."""
