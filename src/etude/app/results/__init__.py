"""Runs beside each other: listed, filtered, grouped, compared and cleaned up."""
