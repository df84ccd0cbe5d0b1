"""Recipes: pure functions that write the tables of rules practitioners use."""
