"""Event processing: devices are actors, their minutes and alerts ordinary Django tables."""
