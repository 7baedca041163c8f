"""Pictures: files in and out, watermark, safety check, features and similarity."""
