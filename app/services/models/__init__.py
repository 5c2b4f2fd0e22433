"""Models, their versions and aliases: created, taught, published, taken out and brought in."""
