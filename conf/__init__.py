"""The configuration tree; a package so that an installed twinlens finds it."""

from twinlens.conf.checking.data_name import register

register()  # whoever composes this tree imports from this package first
