"""Store of finished work: stages under a fingerprint, locks, manifests, files written whole or not at all.

Begin with `store.py`. It may import `processes` and what that may import.
"""
