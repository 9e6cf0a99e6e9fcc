"""From user and item vectors to ranked lists: SIMPLE-LSH, exact and approximate search, mining."""
