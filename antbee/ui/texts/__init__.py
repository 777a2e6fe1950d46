"""The page's texts, a table for each language: the same keys, with the same {fields}."""
