import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import megagrow

project = "megagrow"
author = "the megagrow contributors"
version = release = megagrow.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
autodoc_typehints = "none"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"megagrow {version}"
html_theme_options = {"navigation_with_keys": True}
