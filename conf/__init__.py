"""The configuration tree; a package so that an installed twinlens finds it."""
