"""The configuration tree; a package so that an installed twinlens finds it."""

from conf.names import register

register()  # whoever composes this tree imports from this package first
