"""The command line: ``napari-msseg segment`` and ``napari-msseg demo``."""
