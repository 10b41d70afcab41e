"""Parts of a run that go to others: model card, data card, citations, and the push of these to a hub.

Begin with `cards.py`. It may import `report` and everything below it.
"""
