"""Which sample when: plans, windows, curriculum, mixtures, packing."""
