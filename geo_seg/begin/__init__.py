"""`geo_seg begin`: a first YAML of a data set for whatever lies in a folder."""
