"""The site: settings only, since the demo needs no pages."""
