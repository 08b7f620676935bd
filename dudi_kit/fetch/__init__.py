"""Recipes by reference, copied into a cache. The only part that speaks to the network by itself; without torch."""
