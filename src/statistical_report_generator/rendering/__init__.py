"""From a document to pages: HTML and PDF."""
