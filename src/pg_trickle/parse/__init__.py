"""SQL text to algebra; nothing else touches the SQL parser."""
