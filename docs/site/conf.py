"""Settings of Sphinx for the site."""

from __future__ import annotations

from ipython_pygments_lexers import IPython3Lexer

from docs.site.docstrings import as_restructured
from twinlens import __version__

project = "twinlens"
author = "the maintainers of twinlens"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]

html_theme = "furo"
html_title = f"twinlens {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False  # there is none to show; the licence is a link of the README
html_show_search_summary = False  # a page that is opened as a file may not read others; its hits are shown all the same
smartquotes_action = "D"  # dashes; quotes of settings stay as they are typed
exclude_patterns = ["files/**"]  # what pages link and is no page

myst_heading_anchors = 4  # links to headings, as they work where the pages lie
nb_execution_mode = "off"  # notebooks are executed by their own test and keep their pictures
nb_merge_streams = True
copybutton_exclude = ".linenos, .gp"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_display_short_literal_types = True
maximum_signature_line_length = 90
napoleon_custom_sections = [("Attributes", "params_style")]  # as a list; as objects they would be found twice
napoleon_use_rtype = False  # what is returned is a sentence as often as a type
add_module_names = False
default_role = "code"  # docstrings write `code` in single backticks


def setup(app) -> None:  # type: ignore[no-untyped-def]
    """Docstrings are read in the form in which the project writes them."""
    app.add_lexer("python", IPython3Lexer)  # notebooks call commands by `!`
    app.connect("autodoc-process-docstring", as_restructured, priority=100)  # before napoleon
