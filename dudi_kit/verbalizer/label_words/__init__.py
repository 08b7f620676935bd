"""Label words: what a label is called in each language, and the teacher's mass said in the language of the row.

`files` reads the tables (those that ship lie beside it), `words` finds the pieces that say them, `mass` moves the mass.
"""
