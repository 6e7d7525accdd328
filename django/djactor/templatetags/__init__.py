"""Filters for djactor's templates."""
