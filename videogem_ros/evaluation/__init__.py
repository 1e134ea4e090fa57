"""Measuring groundings against boxes: datasets, labelled bags, metrics, report."""
