"""What Argus adds to each ASGI server so that slow clients cannot hurt."""
