"""What the repository needs and the package does not: its committed reports, and the pages made of them."""
