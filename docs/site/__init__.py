"""Documentation site: `make docs` lays pages, keys and classes under build/site/source and lets Sphinx make HTML."""
