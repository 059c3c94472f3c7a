"""From the export index to files of other people's formats; `formats` holds one plug-in each."""
