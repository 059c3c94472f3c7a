"""Write the export index as files that other programs read; `formats` holds one plug-in for each format."""
