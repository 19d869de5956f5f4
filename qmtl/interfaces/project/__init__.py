"""New projects: layers of templates, and how they become a directory."""
