"""`python -m napari_msseg` is `napari-msseg`."""

from napari_msseg.cli.main import main

if __name__ == "__main__":
    main()
