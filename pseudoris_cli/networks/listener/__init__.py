"""A small network that is shown the objects of a picture and an expression, and says which of them fit it."""
