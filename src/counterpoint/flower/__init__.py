"""Runs across sites on Flower.

Flower starts a process for every message to a site. That process only hands the message to the
site's own one, which `counterpoint flower site` has started and which stays warm: models, data and
device are there from round to round. An app of Flower names `counterpoint.flower.client` and
`counterpoint.flower.server` from the package as it is installed: it brings settings, never code.
"""
