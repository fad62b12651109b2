"""Carries out attempts: slots and their keepers, containment, the steps before and after a command."""
