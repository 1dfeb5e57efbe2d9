"""The ``psys`` command; it only calls what the rest of the package offers."""
