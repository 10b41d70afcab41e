"""The checks that every configuration and command line passes before anything runs. Begin with `checks.py`."""
