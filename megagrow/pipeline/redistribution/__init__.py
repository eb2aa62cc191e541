"""Moving optimizer state between processes when layers, layout or both change."""
