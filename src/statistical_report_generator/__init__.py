"""Reports on saved results: statistics, tables, findings in words, figures. Knows no models."""
