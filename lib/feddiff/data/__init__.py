"""What the data are: tables and their schema, codecs, image sets, partitions."""
