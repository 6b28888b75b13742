"""Networks: layers, transformer, losses, initialisers."""
