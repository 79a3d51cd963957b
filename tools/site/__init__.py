"""The documentation as a site: its pages gathered, built by MkDocs, and looked at."""
