"""Step decorators: frozen values, one file each. The built-ins' names are importable from here."""
