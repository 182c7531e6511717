"""What runs when: classification, cascade, planning, and the queue that carries it out."""
