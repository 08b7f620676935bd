import pytest

from dudi_kit.data.rendering import MAX_CHARACTERS, Refused, compile_template


def render(source: str, **values: object) -> str:
    return compile_template(source)(values)


def test_columns_conditions_loops_and_filters():
    choices = "{% for c in choices %}{{ loop.index }}. {{ c }}\n{% endfor %}"
    template = "{{ text | trim }}\n" + choices + "{{ 'ya' if label == 1 else 'no' }}"
    assert render(template, text=" apa? ", choices=["a", "b"], label=1) == "apa?\n1. a\n2. b\nya"


def test_numbers_are_shown_and_labels_looked_up():
    assert render("{{ label }} {{ names[label] }} {{ ['x', 'y'][label] }}", label=1, names=["a", "b"]) == "1 b y"


@pytest.mark.parametrize(
    ("value", "found"),
    [(None, "null"), ([1], "a list of 1"), ({"a": 1}, "a mapping with a"), (True, "the boolean true")],
)
def test_what_python_would_print_badly_is_refused(value: object, found: str):
    with pytest.raises(Refused, match=found):
        render("{{ x }}", x=value)


def test_not_a_number_is_refused():
    with pytest.raises(Refused, match="NaN"):
        render("{{ x }}", x=float("nan"))


def test_an_unknown_column_is_named():
    with pytest.raises(Refused, match="'txt' is undefined"):
        render("{{ txt }}", text="a")


def test_a_syntax_error_names_its_line():
    with pytest.raises(Refused, match="line 2"):
        compile_template("a\n{% if %}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 999999999 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% set x = 'ab' %}{{ x ~ x }}",
        "{{ '%999999999d' % 1 }}",
        "{{ text.ljust(999999999) }}",
        "{{ text | center(999999999) }}",
        "{{ range(99999) | join }}",
        "{{ ''.__class__.__mro__() }}",
        "{{ text | attr('__class__') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in t %}{% for b in t %}{% for c in t %}x{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in t recursive %}{{ loop(t) }}{% endfor %}",
    ],
)
def test_bombs_and_escapes_are_refused_when_compiled(source: str):
    with pytest.raises(Refused):
        compile_template(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ t | join(t) | join(t) | length }}",
        "{{ t | replace('a', t) | replace('a', t) }}",
        "{% for a in t %}{{ t }}{% endfor %}",
    ],
)
def test_long_results_are_cut_off_before_they_are_made(source: str):
    with pytest.raises(Refused, match=f"{MAX_CHARACTERS:,}"):
        render(source, t="a" * 2000)


def test_what_is_refused_is_named_with_what_is_allowed():
    with pytest.raises(Refused, match=r"line 2: 'center' is not allowed; templates of a recipe may use .* trim"):
        compile_template("\n{{ text | center }}")
    with pytest.raises(Refused, match="'assign' is not allowed"):
        compile_template("{% set x = 1 %}")


def test_attributes_of_python_are_out_of_reach():
    for source in ("{{ t.__class__ }}", "{{ t['__class__'] }}"):
        with pytest.raises(Refused):
            render(source, t="a")
