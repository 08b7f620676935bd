"""The second half of the verbalizer: how the teacher's probabilities are said in the student's pieces.

`spelling`: which bytes a piece stands for. `alignment`: which tokens of two tokenisations of one text face each other.
`meeting`: which pieces of two vocabularies mean the same. `mapping`: picks `shared`, `remap` or `align` and says why.
`overrides`: the file by which a recipe corrects it. `table`: keeps what took time. `coverage`: counts what is taught.
"""
