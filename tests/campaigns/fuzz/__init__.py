"""Thousands of damaged files through every reader of the project.

``python -m tests.campaigns.fuzz`` runs the whole of it; ``tests/campaigns/test_fuzz.py`` a part.
"""
