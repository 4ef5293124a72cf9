"""How Sphinx makes the course's pages: offline in every sense, nothing executed and nothing fetched.

`build.py` calls it with the source tree that it puts together.
"""

import re

import latex2mathml.converter
from docutils import nodes

project = "srcourse"
author = "the authors of srcourse"
project_copyright = "the authors of srcourse. Text and figures: CC BY 4.0, code: MIT"
language = "en"

extensions = ["myst_nb"]
nb_execution_mode = "off"  # the stored outputs, which come from one clean run
nb_ipywidgets_js = {}  # widgets need a kernel; their scripts would come from a network
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["mystnb.unknown_mime_type"]
exclude_patterns = ["extra/**"]

html_theme = "sphinx_book_theme"
html_title = "srcourse"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["extra"]
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # it fetches pages, which a browser forbids for files that are opened without a server
html_last_updated_fmt = None
html_permalinks_icon = "#"
html_theme_options = {
    "show_toc_level": 2,
    "navbar_persistent": [],  # the sidebar has a search field
    "use_download_button": False,
    "use_fullscreen_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def _mathml(self, node, display: bool) -> None:
    """LaTeX as MathML, which browsers draw by themselves: no script, no font to fetch, and screen readers can read it."""
    formula = latex2mathml.converter.convert(node.astext().strip(), display="block" if display else "inline")
    formula = re.sub(r"<mo[^>]*>(&#x0007C;|\|)</mo>", r'<mo lspace="0" rspace="0">\1</mo>', formula)  # |x|, not | x |
    self.body.append(f'<div class="formula">{formula}</div>' if display else formula)
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(lambda self, node: _mathml(self, node, False), None),
        block_renderers=(lambda self, node: _mathml(self, node, True), None),
    )
    app.config.html_math_renderer = "mathml"
