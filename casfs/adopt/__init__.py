"""Takes into the archive what others wrote: objects with their manifests, and plain files."""
