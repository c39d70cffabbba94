"""The index: an SQLite mirror of the manifests, rebuilt from them whenever it is lost."""
