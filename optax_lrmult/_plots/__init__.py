"""Figures of an assignment; matplotlib is imported by the call that draws."""
