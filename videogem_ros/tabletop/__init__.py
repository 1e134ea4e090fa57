"""A camera above a table on which hands act: labelled scenes, drawn by the package itself."""
