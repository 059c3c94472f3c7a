"""Write one self-contained HTML page about a work directory. No command reads it back."""
